"""Processes that stop or hang, and a tritonserver that does or that dies meanwhile. `-s` prints the table's numbers."""

import contextlib
import http.client
import os
import signal
import time
from pathlib import Path

import pytest
from support.own_server import edited
from support.serve_process import serving
from support.under_load import MIXED, Load
from support.waiting import wait_until

from nann import signature
from nann.errors import RequestTimeout, ServerError
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.processes import DEAD, process_state
from nann.signature import BEAM_RETRIEVAL

pytestmark = pytest.mark.triton

HANGS = """
import time
from pathlib import Path

from nann.python_backend.models.{module} import TritonPythonModel as Model

def wait_while(name):
    while Path({folder!r}, name).exists():
        time.sleep(0.02)

class TritonPythonModel(Model):
    def initialize(self, args):
        wait_while("loading-{model}")
        super().initialize(args)

    def execute(self, requests):
        wait_while("executing-{model}")
        return super().execute(requests)
"""
PROCESSES = [spec.name for spec in signature.PROCESSES]
HANG_S = 6.0
"""Deadline and margin."""


@contextlib.contextmanager
def hanging_server(bundle, folder):
    """A `nann serve` whose models hang while a file in its folder tells them to."""
    repository = folder / "repository"
    install_bundle(bundle, repository)
    with edited(repository / BEAM_RETRIEVAL.name / "config.pbtxt", deadline_ms=1000):
        pass
    for model in PROCESSES:
        module = "embedded_onnx" if model in ("scorer", "user_encoder") else model
        path = repository / model / "1" / "model.py"
        path.unlink()
        path.write_text(HANGS.format(module=module, model=model, folder=str(folder)))
    with serving(bundle, folder) as serve:
        yield serve


@pytest.fixture(scope="module")
def served(live_bundle_path, tmp_path_factory):
    with hanging_server(live_bundle_path, tmp_path_factory.mktemp("served")) as serve:
        yield serve


def cases():
    for model in PROCESSES:
        for fault in ("stopped", "hangs"):
            often = (model, fault) in (("beam_retrieval", "stopped"), ("scorer", "hangs"))
            yield pytest.param(model, fault, marks=[] if often else [pytest.mark.slow])


@pytest.mark.parametrize(("model", "fault"), list(cases()))
def test_a_process_that_stands_still_is_killed_and_comes_back(served, bundle, model, fault):
    said = f"the process of {model} version 1 {'was stopped' if fault == 'stopped' else 'answered nothing'}"
    switch, pid, before = served.folder / f"executing-{model}", served.stubs[model], served.words.count(said)
    with Load(served.grpc_url, {"first": bundle}) as load:
        start_s, failures = time.monotonic(), len(load.failures)
        if fault == "stopped":
            os.kill(pid, signal.SIGSTOP)
        else:
            switch.touch()
        wait_until(lambda: process_state(pid) in ("", DEAD))
        killed_s = time.monotonic() - start_s
        switch.unlink(missing_ok=True)
        wait_until(lambda: not served.is_ready() or served.words.count(said) > before)
        load.wait_for(lambda: served.words.count(said) > before)
        load.wait_for(served.is_ready)
        load.more()
        whole_s = time.monotonic() - start_s
    print(
        f"\n{model} {fault}: killed after {killed_s:.1f} s, all is well after {whole_s:.1f} s, "
        f"{len(load.failures) - failures} requests failed of {load.threads} clients"
    )
    assert served.words.count(said) == before + 1
    assert set(served.stubs) == set(PROCESSES)
    assert load.answers[MIXED] == 0
    for failure in load.failures:
        assert isinstance(failure.error, (ServerError, RequestTimeout))
    if fault == "hangs":
        assert killed_s > HANG_S - 2, "a search may take as long as its deadline"


def test_after_a_pause_of_all_processes_none_is_killed(served, bundle):
    """As `docker pause` does; the command itself is paused too."""
    words, stubs = served.words, served.stubs
    everything = [served.process.pid, served.triton, *stubs.values()]
    with Load(served.grpc_url, {"first": bundle}) as load:
        for pid in everything:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(HANG_S + 1)
        for pid in everything:
            os.kill(pid, signal.SIGCONT)
        load.more()
        assert load.answers[MIXED] == 0
    assert served.words == words
    assert served.stubs == stubs


@pytest.mark.slow
def test_a_tritonserver_that_stands_still_is_ended(live_bundle_path, bundle, tmp_path):
    with serving(live_bundle_path, tmp_path) as serve, Load(serve.grpc_url, {"first": bundle}):
        start_s = time.monotonic()
        os.kill(serve.triton, signal.SIGSTOP)
        assert serve.wait() == 2
        print(f"\ntritonserver stopped: `nann serve` ended after {time.monotonic() - start_s:.1f} s")
    assert "was stopped for 3 s, and was killed; start `nann serve` again" in " ".join(serve.words.split())


def test_the_end_of_tritonserver_is_noticed_while_a_model_loads(live_bundle_path, tmp_path):
    """The new process inherits the open connections of tritonserver, so a call to load it would wait for its end."""
    with hanging_server(live_bundle_path, tmp_path) as serve:
        idle = http.client.HTTPConnection(serve.http_url)
        idle.request("GET", "/v2/health/live")
        idle.getresponse().read()
        old, triton = serve.stubs["scorer"], serve.triton
        (tmp_path / "loading-scorer").touch()
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: serve.stubs.get("scorer", old) != old)
        new = serve.stubs["scorer"]
        start_s = time.monotonic()
        os.kill(triton, signal.SIGKILL)
        assert serve.wait() == 2
        took_s = time.monotonic() - start_s
        idle.close()
    print(f"\ntritonserver died during a load: `nann serve` ended after {took_s:.1f} s")
    assert took_s < 5, "2 s, on a machine that does nothing else"
    assert "Triton was ended by SIGKILL" in serve.words
    assert not Path(f"/proc/{new}/cmdline").exists() or process_state(new) == DEAD
