"""Faults of a server, what clients see of them, and the time to recovery. `-s` prints the table's numbers.

test_serve_command.py tests damaged files and used ports at start; test_deploy.py tests damaged bundles and full disks.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
from support.own_server import server_options
from support.ports import free_ports
from support.serve_process import serving
from support.under_load import MIXED, Load

from nann.errors import ServerError, ServerUnavailable
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.triton import TritonServer

pytestmark = pytest.mark.triton


@pytest.fixture
def serve(live_bundle_path, tmp_path):
    with serving(live_bundle_path, tmp_path) as serve:
        yield serve


@pytest.mark.parametrize(
    "model", ["scorer", "beam_retrieval", *(pytest.param(m, marks=pytest.mark.slow) for m in ("user_encoder",))]
)
def test_a_killed_stub_comes_back_by_itself(serve, bundle, model):
    said = f"the process of {model} version 1 died; it was loaded again in"
    with Load(serve.grpc_url, {"first": bundle}) as load:
        for times in (1, 2):
            killed_s, before = time.monotonic(), len(load.failures)
            os.kill(serve.stubs[model], signal.SIGKILL)
            load.wait_for(lambda: serve.words.count(said) == times)  # noqa: B023
            load.more()
            took = time.monotonic() - killed_s
            print(
                f"\nkill -9 of {model}: {len(load.failures) - before} requests failed, all is well after {took:.1f} s"
            )
    assert load.answers[MIXED] == 0
    for failure in load.failures:
        assert isinstance(failure.error, ServerError)
        assert "is not healthy" in str(failure.error)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_sigterm_under_load_answers_or_refuses_every_request(live_bundle_path, bundle, tmp_path, protocol):
    install_bundle(live_bundle_path, tmp_path / "repository")
    server = TritonServer(server_options(tmp_path))
    server.start()
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with Load(url, {"first": bundle}, threads=4, protocol=protocol) as load:
        server.stop()
        load.wait_for(lambda: "efused" in str(load.failures[-1].error))
    assert set(load.answers) == {"first"}
    assert [failure for failure in load.failures if not isinstance(failure.error, ServerUnavailable)] == []
    print(f"\nSIGTERM under {protocol} load: {load.answers.total()} right, {len(load.failures)} refused")


def in_small_shared_memory(size: str, *command: str) -> subprocess.CompletedProcess:
    """Runs a command with its own /dev/shm."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command], capture_output=True, text=True, timeout=120
    )


def test_a_tiny_shared_memory_is_refused_at_start(live_bundle_path, tmp_path):
    http, grpc, metrics = free_ports(3)
    done = in_small_shared_memory(
        "2m",
        *(sys.executable, "-m", "nann", "serve", "--bundle", str(live_bundle_path)),
        *("--repository", str(tmp_path / "repository"), "--log-file", str(tmp_path / "log")),
        *("--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)),
    )
    assert done.returncode == 2, done.stderr
    assert "Unable to initialize shared memory key" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


FILL = """
import sys
from pathlib import Path

import numpy as np

from nann.clients import RetrievalClient
from nann.errors import NannError
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.triton import ServerOptions, TritonServer

bundle, folder = map(Path, sys.argv[1:3])
install_bundle(bundle, folder / "repository")
options = ServerOptions(folder / "repository", "127.0.0.1", *map(int, sys.argv[3:]), log_file=folder / "log")
small, large = [1060, 1063], np.full((16, 10000), 1060)
with TritonServer(options) as server, RetrievalClient(server.grpc_url, timeout_s=30) as client:
    right = client.retrieve(small).item_ids.tolist()
    filler = Path("/dev/shm/filler")
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
    assert client.retrieve(small).item_ids.tolist() == right, "what the processes have already is enough"
    try:
        client.retrieve(large)
    except NannError as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print("answered")
    assert client.retrieve(small).item_ids.tolist() == right
    filler.unlink()
    client.retrieve(large)
    assert client.retrieve(small).item_ids.tolist() == right
"""


def test_a_full_shared_memory_fails_large_requests_only(live_bundle_path, tmp_path):
    ports = map(str, free_ports(3))
    done = in_small_shared_memory("8m", sys.executable, "-c", FILL, str(live_bundle_path), str(tmp_path), *ports)
    assert done.returncode == 0, done.stderr
    assert "ServerError: in ensemble 'nann', Failed to increase the shared memory pool size" in done.stdout
