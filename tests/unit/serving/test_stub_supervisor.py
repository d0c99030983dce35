"""The supervisor of a server's Python processes, with real processes: a parent that starts children as it is told."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from support import tiny_bundle
from support.waiting import wait_until

from nann.bundle import Bundle
from nann.errors import ServerError, ServerUnavailable
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.repository.versions import models_locked
from nann.python_backend.server import stub_supervisor
from nann.python_backend.server.heartbeat import Heartbeat, Restarts, tiny_request
from nann.python_backend.server.processes import DEAD, child_processes, process_state, served_model
from nann.python_backend.server.stub_supervisor import StubSupervisor
from nann.python_backend.version_history import Versions
from nann.signature import BEAM_RETRIEVAL, CATALOG, ENSEMBLE, FEATURE_TRANSFORM, HEARTBEAT_ID, PROCESSES, RESTARTS

PARENT = """
import subprocess, sys
for model in sys.stdin:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"/r/{model.strip()}/1/model.py"])
    print(child.pid, flush=True)
"""


class FakeServer:
    """Stands for tritonserver and `ModelControl`: a process whose children are "stubs", and what a test makes of it."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.stubs, self.loads, self.beats = {}, [], []
        self.load_error, self.hung, self.refusing, self.is_live = None, set(), False, True
        self.parameters = {"deadline_ms": {"string_value": "10000"}}

    def start(self, model):
        self.process.stdin.write(f"{model}\n")
        self.process.stdin.flush()
        self.stubs[model] = int(self.process.stdout.readline())
        wait_until(lambda: served_model(self.stubs[model]) is not None)  # just after exec it has no command line

    def config(self, model):
        if model == ENSEMBLE.name:
            return {"ensemble_scheduling": {"step": [{}, {}, {}]}}
        return {"backend": "python", "instance_group": [{"count": 1}], "parameters": self.parameters}

    def live(self, timeout_s):
        if not self.is_live:
            raise ServerUnavailable("nothing")

    def load(self, model):
        self.loads.append(model)
        if self.load_error is not None:
            raise self.load_error
        self.start(model)

    def infer(self, spec, inputs, version, timeout_s, request_id, parameters):
        if spec.name in self.hung:
            raise ServerError("waited too long") if self.refusing else ServerUnavailable("nothing")
        assert set(spec.inputs) & set(inputs)
        self.beats.append((spec.name, version, request_id, parameters))
        raise ServerError("the process fails, and is well")

    def executions(self, model, version):
        return sum(beat[0] == model for beat in self.beats)

    def close(self):
        for pid in self.stubs.values():
            with contextlib.suppress(ProcessLookupError):  # one that died unseen
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


class Watched:
    """A supervisor and what it said, at least one check after each thing that a test did."""

    def __init__(self, server, repository):
        self.server, self.words, self.ready = server, [], []
        self.supervisor = StubSupervisor(
            server.process.pid,
            repository,
            server,
            self.words.append,
            self.ready.append,
            lambda: Versions.read(repository).current,
            lambda: models_locked(repository),
        )

    def until(self, condition):
        def checked():
            self.supervisor.check()
            return condition()

        return wait_until(checked, self.words)

    def for_a_while(self, seconds=1.0):
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)


@pytest.fixture
def repository(tmp_path):
    install_bundle(tiny_bundle.make_bundle(tmp_path / "bundle").path, tmp_path / "r")
    return tmp_path / "r"


@pytest.fixture
def watched(repository):
    server = FakeServer()
    try:
        for spec in PROCESSES:
            server.start(spec.name)
        watched = Watched(server, repository)
        watched.until(lambda: len(watched.supervisor._heartbeats) == len(PROCESSES))
        yield watched
        watched.supervisor.close()
        if watched.supervisor._repair is not None:
            watched.supervisor._repair.join()
    finally:
        server.close()


def test_what_dies_and_is_not_waited_for_is_seen(watched):
    pid = watched.server.stubs["scorer"]
    assert child_processes(watched.server.process.pid)[pid] in "RS"
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: child_processes(watched.server.process.pid)[pid] == DEAD)
    assert process_state(watched.server.process.pid) in "RS"
    assert process_state(2**22 + 1) == "", "no process"
    assert child_processes(2**22 + 1) == {}


def test_a_dead_process_is_loaded_again_once_and_meanwhile_the_server_is_not_ready(watched, repository):
    server = watched.server
    before = os.stat(repository / "scorer" / "1").st_mtime_ns
    assert set(watched.ready) == {True}
    os.kill(server.stubs["scorer"], signal.SIGKILL)
    watched.until(lambda: watched.words)
    assert watched.words[0].startswith("the process of scorer version 1 died; it was loaded again in ")
    assert os.stat(repository / "scorer" / "1").st_mtime_ns > before, "else Triton would not load it again"
    assert False in watched.ready
    watched.for_a_while()
    assert server.loads == ["scorer"]
    assert watched.ready[-1] is True


def test_a_process_that_died_before_it_was_looked_at_is_loaded_too(watched):
    server = watched.server
    load, server.load = server.load, lambda model: (load(model), os.kill(server.stubs[model], signal.SIGKILL))
    os.kill(server.stubs["scorer"], signal.SIGKILL)
    watched.until(lambda: server.loads)
    server.load = load
    watched.until(lambda: any("loaded again" in word for word in watched.words))
    watched.for_a_while()
    assert len(server.loads) == 2


def test_a_process_that_died_before_the_first_look_is_loaded_again(repository):
    server = FakeServer()
    try:
        server.start("scorer")
        os.kill(server.stubs["scorer"], signal.SIGKILL)
        wait_until(lambda: process_state(server.stubs["scorer"]) == DEAD)
        watched = Watched(server, repository)
        watched.until(lambda: watched.words)
        watched.supervisor.close()
    finally:
        server.close()
    assert len(server.loads) == 1, "of one of its models: which one, nobody can tell"


def test_a_stopped_process_is_killed_before_its_request_is_given_up(watched):
    stub = watched.server.stubs["beam_retrieval"]
    os.kill(stub, signal.SIGSTOP)
    stopped_s = time.monotonic()
    watched.until(lambda: process_state(stub) in (DEAD, ""))  # "": the new one's start waited for it
    assert time.monotonic() - stopped_s < 1.0
    watched.until(lambda: watched.words)
    assert "beam_retrieval version 1 was stopped and was killed; it was loaded again" in watched.words[0]


def test_after_a_pause_of_everything_nobody_is_killed(watched):
    """The supervisor stood still as well, so it can't tell who did."""
    server = watched.server
    watched.supervisor.hang_s = 0.5
    server.hung |= {spec.name for spec in PROCESSES}
    for pid in (*server.stubs.values(), server.process.pid):
        os.kill(pid, signal.SIGSTOP)
    watched.supervisor.check()
    time.sleep(stub_supervisor.SERVER_STOPPED_S + 0.5)
    for pid in (*server.stubs.values(), server.process.pid):
        os.kill(pid, signal.SIGCONT)
    server.hung.clear()
    watched.supervisor.hang_s = 15
    watched.for_a_while()
    assert watched.words == []
    assert server.loads == []


def test_a_process_that_answers_nothing_is_killed_and_a_search_is_not_blamed_for_its_scorer(watched):
    server = watched.server
    watched.supervisor.hang_s = 3.0
    server.hung |= {"scorer", "beam_retrieval"}
    watched.until(lambda: server.loads)
    server.hung.clear()
    watched.until(lambda: watched.words)
    assert "the process of scorer version 1 answered nothing for 3 s and was killed; it was loaded" in watched.words[0]
    assert server.loads == ["scorer"]
    server.refusing = True  # Triton refuses a heartbeat that waits too long in its queue
    server.hung.add("user_encoder")
    watched.until(lambda: server.loads == ["scorer", "user_encoder"])


def test_a_hang_is_longer_than_any_request_may_take(watched):
    assert watched.supervisor.hang_s == 15


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_a_server_that_hangs_is_killed_and_said(watched, monkeypatch, how):
    monkeypatch.setattr(stub_supervisor, "SERVER_STOPPED_S", 0.5)
    monkeypatch.setattr(stub_supervisor, "SERVER_SILENT_S", 2.0)
    if how == "stopped":
        os.kill(watched.server.process.pid, signal.SIGSTOP)
    else:
        watched.server.is_live = False
    message = r"tritonserver \(process \d+\) (was stopped for|answered nothing for) \d s, and was killed; start `nann"
    with pytest.raises(ServerError, match=message):
        watched.until(lambda: False)
    assert watched.server.process.wait() == -signal.SIGKILL
    assert watched.server.loads == []


def test_a_check_waits_for_no_load(watched):
    released = threading.Event()
    watched.server.load = lambda model: released.wait()
    os.kill(watched.server.stubs["scorer"], signal.SIGKILL)
    watched.until(lambda: watched.supervisor._repair is not None)
    start = time.monotonic()
    for _ in range(10):
        watched.supervisor.check()
    assert time.monotonic() - start < 5
    released.set()


def test_a_load_waits_for_a_deploy(watched, repository):
    with models_locked(repository):
        os.kill(watched.server.stubs["scorer"], signal.SIGKILL)
        watched.until(lambda: watched.supervisor._repair is not None)
        watched.for_a_while()
        assert watched.server.loads == []
    watched.until(lambda: watched.server.loads == ["scorer"])


def test_a_version_that_went_is_let_go(watched, repository):
    (repository / "scorer" / "1").unlink()
    os.kill(watched.server.stubs["scorer"], signal.SIGKILL)
    watched.for_a_while()
    assert watched.server.loads == []


def test_only_a_load_that_fails_is_tried_ever_more_rarely(watched):
    server = watched.server
    for times in (1, 2, 3):
        os.kill(server.stubs["scorer"], signal.SIGKILL)
        watched.until(lambda: len(watched.words) == times)  # noqa: B023
        assert "loaded again in" in watched.words[-1], "it loads, and dies of what clients send"
    server.load_error = ServerError("no")
    os.kill(server.stubs["scorer"], signal.SIGKILL)
    watched.until(lambda: len(watched.words) == 5)
    assert watched.words[3].endswith("died and does not load again: no; the next try is in 1 s")
    assert watched.words[4].endswith("the next try is in 2 s")
    server.load_error = None
    server.start, start = lambda model: None, server.start
    watched.until(lambda: len(watched.words) == 6)
    assert watched.words[5].endswith("does not load again: Triton started no process; the next try is in 4 s")
    server.start = start


def test_without_its_catalog_or_its_scorer_a_server_that_degrades_is_ready(watched):
    watched.supervisor._may_miss_scorer = True
    watched.server.load_error = ServerError("no")
    for model in (CATALOG.name, "scorer"):
        os.kill(watched.server.stubs[model], signal.SIGKILL)
        watched.until(lambda: any(word.startswith(f"the process of {model} ") for word in watched.words))  # noqa: B023
    assert set(watched.ready) == {True}
    os.kill(watched.server.stubs["user_encoder"], signal.SIGKILL)
    watched.until(lambda: watched.ready[-1] is False)


def test_heartbeats_go_to_every_process_and_tell_beam_retrieval_of_restarts(watched):
    os.kill(watched.server.stubs["scorer"], signal.SIGKILL)

    def told():
        return [json.loads(beat[3][RESTARTS]) for beat in watched.server.beats if beat[0] == BEAM_RETRIEVAL.name]

    watched.until(lambda: {"scorer": 1} in told())
    watched.until(lambda: len({beat[0] for beat in watched.server.beats}) == len(PROCESSES))
    assert {beat[1:3] for beat in watched.server.beats} == {(1, HEARTBEAT_ID)}


def test_silence_is_broken_by_an_answer():
    silent = threading.Event()

    def ask():
        if silent.is_set():
            raise ServerError("refused")

    heartbeat = Heartbeat(ask)
    wait_until(lambda: heartbeat.silent_s > 0.5)
    wait_until(lambda: heartbeat.silent_s < 0.5)
    silent.set()
    wait_until(lambda: heartbeat.silent_s > 1.5)
    heartbeat.forgive()
    assert heartbeat.silent_s < 0.5
    heartbeat.close()


def test_restarts_wait_until_they_are_counted():
    restarts, counted = Restarts(), []
    restarts.add("scorer")

    def fail(processes):
        restarts.add("scorer")
        raise ServerError("no")

    with pytest.raises(ServerError, match="no"):
        restarts.send(fail)
    restarts.send(counted.append)
    restarts.send(counted.append)
    assert counted == [{"scorer": 2}, {}]


def test_a_tiny_request_fits_every_model(tmp_path):
    bundle = Bundle.open(tiny_bundle.make_bundle(tmp_path / "bundle").path)
    tensors = tiny_request(bundle)
    assert all(array.dtype == spec.dtype and len(array) == 1 for spec, array in tensors.items())
    behaviors, unknown = bundle.features.behaviors(tensors[FEATURE_TRANSFORM.inputs[0]])
    assert unknown.sum() == 0
    assert behaviors.shape == tensors[FEATURE_TRANSFORM.outputs[0]].shape
