"""Servers that do a request in one process, or in one and the scorer, answer as one with a process for each step."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from support import live_bundle
from support.cli_commands import nann
from support.live_bundle import FAILING_INDEX, NAN_INDEX, item_ids
from support.own_server import edited, own_server, server_options
from support.serve_process import serving, stubs
from support.stored_users import write_store
from support.under_load import MIXED, Load

from nann.bundle import Bundle
from nann.clients import RetrievalClient
from nann.errors import NannError, RequestTimeout
from nann.python_backend.repository.deploy import deploy, rollback_online
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.processes import DEAD, child_processes, served_model
from nann.python_backend.server.triton import TritonServer

pytestmark = pytest.mark.triton

IDS = item_ids()
FORMS = {"one": {"beam_retrieval", "catalog"}, "two": {"beam_retrieval", "scorer", "catalog"}}
"""The processes of each form."""
HANGS_ONCE = """
import os, time
from nann.python_backend.models.beam_retrieval import TritonPythonModel as Model

class TritonPythonModel(Model):
    def outcomes(self, requests):
        try:
            os.remove({switch!r})
        except FileNotFoundError:
            return super().outcomes(requests)
        time.sleep(1000)
"""
FIELDS = ("item_ids", "scores", "unknown_items", "items_scored", "items_matching", "status", "stored_items")


def asked() -> list[tuple[list | None, dict]]:
    """Requests of every kind: histories and what is asked beside them."""
    users = [IDS[start : start + 5].tolist() for start in range(10, 26)]
    return [
        (users[0], {}),
        (users, {"top_k": 7}),
        ([5, 6, 0, -1, *users[1]], {"entry": "seeds"}),
        (users[2], {"ef": [60], "rounds": [1], "entry": "seeds"}),
        (users[3], {"filter": "price < 50 and department in ('DRUG GM', 'PRODUCE')"}),
        (users[4], {"filter_name": "available_de", "exclude_history": True}),
        (users[5], {"exclude_item_ids": IDS[:2000].tolist(), "entry": "seeds"}),
        (users[6:8], {"allow_item_ids": [IDS[30:90].tolist(), [7]]}),
        (None, {"user_id": ["17", "u-1", "none", "nobody", None]}),
        (users[8], {"user_id": 17, "exclude_history": True}),
        ([], {}),
        (users[9], {"deadline_ms": 1, "on_deadline": "partial", "rounds": [20, 20, 20], "ef": [900, 900, 900]}),
        (users[9], {"top_k": 5000}),
        (users[9], {"entry": "nothing"}),
        (users[9], {"filter": "prize < 3"}),
        ([int(IDS[FAILING_INDEX])], {}),
        ([int(IDS[NAN_INDEX])], {}),
        (list(range(10_001)), {}),
        (users[9], {"user_id": "x" * 300}),
    ]


def processes_of(triton: int) -> list[int]:
    """The living processes of beam_retrieval."""
    alive = (pid for pid, state in child_processes(triton).items() if state != DEAD)
    return [pid for pid in alive if (served := served_model(pid)) is not None and served[0] == "beam_retrieval"]


def answer(client: RetrievalClient, history: list | None, options: dict) -> object:
    """What a client gets: the arrays of an answer, or the kind and the words of an error."""
    try:
        found = client.retrieve(history, **options)
    except NannError as error:
        return type(error), str(error).replace("scorer version 1 failed: ", "")  # how it was called
    return {name: getattr(found, name) for name in FIELDS}


@pytest.fixture(scope="module", params=FORMS)
def form(request, live_bundle_path, tmp_path_factory):
    """A server of this form, and one with a process for each step, both with the users' histories."""
    with ExitStack() as stack:
        servers = {}
        for steps in (request.param, "separate"):
            folder = tmp_path_factory.mktemp(steps)
            store = str(write_store(folder / "histories"))
            servers[steps] = stack.enter_context(own_server(live_bundle_path, folder, histories=store, steps=steps))
        yield servers


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_every_answer_and_every_error_is_the_same(form, protocol):
    for steps in FORMS:
        if steps in form:
            assert set(stubs(form[steps].pid)) == FORMS[steps]
    urls = [server.grpc_url if protocol == "grpc" else server.http_url for server in form.values()]
    late = "did not end within its deadline"
    with ExitStack() as stack:
        clients = [stack.enter_context(RetrievalClient(url, protocol, timeout_s=20)) for url in urls]
        for history, options in asked():
            one, separate = (answer(client, history, options) for client in clients)
            if "deadline_ms" in options:  # how far the search gets in time differs
                for found in (one, separate):
                    assert late in found[1] if isinstance(found, tuple) else found["status"].tolist() == [1]
            elif isinstance(separate, tuple):
                assert one == separate, (history, options)
            else:
                assert isinstance(one, dict), (one, history, options)
                for name, array in separate.items():
                    np.testing.assert_array_equal(one[name], array, err_msg=f"{name} of {options}")


def test_a_deadline_counts_from_when_the_server_took_the_request(form):
    """The first process stands still when a request comes: it is late, although the search would take no time."""
    for steps, server in form.items():
        with RetrievalClient(server.grpc_url, timeout_s=20) as client, ThreadPoolExecutor() as pool:
            client.retrieve(IDS[20:23].tolist(), deadline_ms=300)
            pid = stubs(server.pid)["feature_transform" if steps == "separate" else "beam_retrieval"]
            os.kill(pid, signal.SIGSTOP)
            try:
                asked = pool.submit(client.retrieve, IDS[20:23].tolist(), deadline_ms=300)
                time.sleep(0.5)
            finally:
                os.kill(pid, signal.SIGCONT)
            with pytest.raises(RequestTimeout, match="did not end within its deadline"):
                asked.result()


def test_text_ids(tmp_path):
    bundle = live_bundle.make_bundle(tmp_path / "bundle", texts=True)
    found = []
    for steps in ("one", "separate"):
        with (
            own_server(bundle.path, tmp_path / steps, steps=steps) as server,
            RetrievalClient(server.grpc_url, timeout_s=20) as client,
        ):
            history = live_bundle.text_ids()[900:905]
            found.append(client.retrieve([*history, "no item"], exclude_item_ids=live_bundle.text_ids()[:500]))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))
    assert found[0].unknown_items.tolist() == [1]


@pytest.mark.parametrize("steps", FORMS)
def test_a_deploy_and_a_rollback_under_load(live_bundle_path, tmp_path, steps):
    bundles = {"first": Bundle.open(live_bundle_path), "second": live_bundle.make_bundle(tmp_path / "b", seed=2)}
    install_bundle(live_bundle_path, tmp_path / "repository")
    with (
        TritonServer(server_options(tmp_path, admin_key="0123abc", steps=steps)) as server,
        Load(server.grpc_url, bundles) as load,
    ):
        deploy(bundles["second"].path, tmp_path / "repository", server.control)
        load.more()
        assert load.times_s[-1][1] == "second"
        rollback_online(tmp_path / "repository", server.control)
        load.more()
        assert load.times_s[-1][1] == "first"
        assert set(stubs(server.pid)) == FORMS[steps]
    assert load.failures == []
    assert load.answers[MIXED] == 0


def test_the_process_that_does_it_all_is_killed_and_comes_back(live_bundle_path, bundle, tmp_path):
    with serving(live_bundle_path, tmp_path, steps="one") as serve, Load(serve.grpc_url, {"first": bundle}) as load:
        assert "steps one (one process does all of a request, the scorer too)" in serve.words
        for fault in (signal.SIGKILL, signal.SIGSTOP):
            before = serve.words.count("it was loaded again")
            os.kill(serve.stubs["beam_retrieval"], fault)
            load.wait_for(lambda before=before: serve.words.count("it was loaded again") > before)
            load.wait_for(serve.is_ready)
            load.more()
        assert set(serve.stubs) == FORMS["one"]


@pytest.mark.slow
def test_one_of_two_processes_that_hangs_ends_itself(live_bundle_path, bundle, tmp_path):
    install_bundle(live_bundle_path, tmp_path / "repository")
    with edited(tmp_path / "repository/beam_retrieval/config.pbtxt", deadline_ms=1000):
        pass
    model = tmp_path / "repository/beam_retrieval/1/model.py"
    model.unlink()
    model.write_text(HANGS_ONCE.format(switch=str(tmp_path / "hang")))
    options = ("--instances", "2")
    with (
        serving(live_bundle_path, tmp_path, *options, steps="one") as serve,
        Load(serve.grpc_url, {"first": bundle}) as load,
    ):
        assert len(processes_of(serve.triton)) == 2
        (tmp_path / "hang").touch()
        load.wait_for(lambda: "it was loaded again" in serve.words)
        load.wait_for(serve.is_ready)
        load.more()
        load.wait_for(lambda: len(processes_of(serve.triton)) == 2)
        assert "this process hangs, and ends" in (tmp_path / "log").read_text()


def test_steps_that_do_not_fit_the_target(live_bundle_path, tmp_path):
    refused = nann(
        "serve", "--bundle", live_bundle_path, "--repository", tmp_path, "--steps", "one", "--target", "torch"
    )
    assert refused.code == 2
    assert "--steps one runs the user encoder with onnxruntime in the process of the search" in refused.stderr


def test_instances_by_the_variable(live_bundle_path, tmp_path, monkeypatch):
    monkeypatch.setenv("NANN_INSTANCES", "2")
    refused = nann("serve", "--bundle", live_bundle_path, "--repository", tmp_path, "--steps", "separate")
    assert refused.code == 2
    assert "--instances or NANN_INSTANCES is 2, and steps are separate" in refused.stderr
    monkeypatch.setenv("NANN_INSTANCES", "0")
    assert "NANN_INSTANCES" in nann("serve", "--bundle", live_bundle_path, "--repository", tmp_path).stderr
    monkeypatch.setenv("NANN_INSTANCES", "")  # as a container has it whose operator sets nothing
    assert "none is not a bundle" in nann("serve", "--bundle", tmp_path / "none", "--repository", tmp_path).stderr
