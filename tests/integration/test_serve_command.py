"""`nann serve` as a process: how it starts, refuses to start, and stops without leaving anything behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest
from support.live_bundle import item_ids
from support.own_server import STEPS, server_options
from support.ports import free_ports
from support.server_usage import commands_with
from support.waiting import wait_until

from nann.clients import RetrievalClient
from nann.errors import BundleError, ServerError
from nann.python_backend.engines.recorded import recorded_engine
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.stub_supervisor import child_processes
from nann.python_backend.server.triton import TritonServer
from nann.python_backend.server.triton_install import find_triton

pytestmark = pytest.mark.triton

SERVE = [sys.executable, "-m", "nann", "serve"]


@pytest.fixture
def serve(live_bundle_path, tmp_path):
    """Starts `nann serve` and waits until it answers; returns the process and its gRPC address."""
    processes = []

    def start(*more, before=()):
        http, grpc, metrics = free_ports(3)
        command = [*before, *SERVE, *_arguments(live_bundle_path, tmp_path, http, grpc, metrics), *more]
        process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": str(tmp_path)},  # a killed command can't remove its temporary folder
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        with RetrievalClient(f"127.0.0.1:{grpc}", timeout_s=5) as client:
            wait_until(lambda: client.is_ready() or process.poll() is not None)
            assert process.poll() is None, process.stderr.read()
        return process, f"127.0.0.1:{grpc}"

    yield start
    for process in processes:
        with process:  # closes its pipes
            process.kill()
    wait_until(lambda: not _processes(tmp_path), lambda: _processes(tmp_path))


def _arguments(bundle, tmp_path, http, grpc, metrics):
    return [
        *("--bundle", str(bundle), "--repository", str(tmp_path / "repository"), "--log-file", str(tmp_path / "log")),
        *("--steps", STEPS, "--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)),
    ]


def _processes(folder: Path) -> list[str]:
    """Command lines of tritonserver and its stubs that serve a repository in this folder."""
    names = ("/tritonserver ", "/triton_python_backend_stub ")
    return [command for command in commands_with(str(folder)) if any(name in command for name in names)]


def _shared_memory(regions: list[str]) -> list[Path]:
    return [path for region in regions for path in Path("/dev/shm").glob(f"{region}-*")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(serve, tmp_path, number):
    process, url = serve()
    # Shared memory is named after the server's temporary folder, which is in ours.
    regions = [path.name for path in tmp_path.glob("nann-triton-*")]
    assert _shared_memory(regions)
    assert len(_processes(tmp_path)) == 6, "tritonserver and five stubs"
    with RetrievalClient(url) as client:
        assert client.retrieve(item_ids()[20:25], top_k=3).item_ids.shape == (1, 3)
    process.send_signal(number)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 0, words
    assert "Traceback" not in words
    assert f"nann query --url {url} --ids 1000,1003,1006" in words
    assert "stopped" in words
    assert not _processes(tmp_path)
    assert not _shared_memory(regions)


def test_a_ctrl_c_at_the_terminal_reaches_the_command_only_and_stops_in_order(serve, tmp_path):
    """Served under a name, and described in JSON."""
    process, url = serve("--host", "localhost", "--json", "--engine", "onnxruntime")
    assert "scorer: engine onnxruntime; as asked for" in (tmp_path / "log").read_text()
    assert recorded_engine(tmp_path / "repository") == "onnxruntime"
    described = json.loads(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 0, words
    assert not _processes(tmp_path)
    expected = {"version": 1, "items": 4000, "pid": process.pid, "grpc": url.replace("127.0.0.1", "localhost")}
    assert described.items() >= {**expected, "log": str(tmp_path / "log")}.items()


def test_a_killed_command_leaves_nothing_although_a_client_keeps_a_connection_open(serve, tmp_path):
    process, _ = serve("--json")
    (folder,) = tmp_path.glob("nann-triton-*")
    assert _shared_memory([folder.name])
    host, port = json.loads(process.stdout.readline())["http"].split(":")
    with contextlib.closing(HTTPConnection(host, int(port), timeout=20)) as idle:
        idle.request("GET", "/v2")
        idle.getresponse().read()
        process.kill()
        process.wait()
        wait_until(lambda: not _processes(tmp_path), lambda: _processes(tmp_path), timeout_s=10)
        wait_until(lambda: not (folder.exists() or _shared_memory([folder.name])), timeout_s=10)


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def test_a_read_only_disk_and_a_path_with_spaces(serve, live_bundle_path, tmp_path):
    """A start has nothing to write there, once a version is complete."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    repository = tmp_path / "a repository; $HOME"
    install_bundle(live_bundle_path, repository)
    in_own_mounts = ["unshare", "-m", "sh", "-c", READ_ONLY, str(repository)]
    process, url = serve("--repository", str(repository), before=in_own_mounts)
    with RetrievalClient(url) as client:
        assert client.retrieve(item_ids()[20:25], top_k=3).item_ids.shape == (1, 3)
    process.terminate()
    _, words = process.communicate(timeout=120)
    assert process.returncode == 0, words


def test_a_repository_that_is_served_is_refused(server, live_bundle_path, tmp_path):
    arguments = _arguments(live_bundle_path, tmp_path, *free_ports(3))
    words = refused(*arguments, "--repository", str(server.options.repository))
    expected = f"is in use by process {os.getpid()} (a server, HTTP at {server.http_url}); stop that process first"
    assert expected in words
    offline = [sys.executable, "-m", "nann", "rollback", "--offline", "--repository", str(server.options.repository)]
    done = subprocess.run(offline, capture_output=True, text=True, timeout=120)
    assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
    assert server.is_ready()


def test_a_server_that_dies_is_reported(serve, tmp_path):
    process, _ = serve()
    (server,) = child_processes(process.pid)
    # The command checks readiness itself, so it may see it later than the fixture.
    assert any("Ctrl-C stops the server" in line for line in process.stderr)
    os.kill(server, signal.SIGKILL)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Triton was ended by SIGKILL" in words
    assert "Traceback" not in words
    wait_until(lambda: not _processes(tmp_path), lambda: _processes(tmp_path))


def test_a_process_that_dies_before_its_first_sign_of_life_is_reported_at_once(live_bundle_path, tmp_path):
    """Triton would wait for it until its own timeout of 300 s."""
    install_bundle(live_bundle_path, tmp_path / "repository")
    stub = tmp_path / "stub"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    server = TritonServer(server_options(tmp_path), replace(find_triton(), stub=stub))
    start = time.monotonic()
    # Whether Triton gives up first depends on its timing.
    said = (
        "Triton (could not start|can't get ready, since (the process of a model has ended|a model did not load)); its"
    )
    with pytest.raises(ServerError, match=said):
        server.start()
    assert time.monotonic() - start < 100


def refused(*arguments: str) -> str:
    """Runs `nann serve`, which must end with exit code 2, and returns its message."""
    done = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_that_is_taken(live_bundle_path, tmp_path):
    http, grpc, metrics = free_ports(3)
    with socket.create_server(("127.0.0.1", grpc)):
        words = refused(*_arguments(live_bundle_path, tmp_path, http, grpc, metrics))
    assert f"port {grpc} on 127.0.0.1 can't be used: Address already in use" in words
    assert "--grpc-port" in words


def test_a_bundle_that_is_missing_or_changed(live_bundle_path, tmp_path):
    words = refused(*_arguments(tmp_path / "nowhere", tmp_path, *free_ports(3)))
    assert "is not a bundle" in words
    bundle = shutil.copytree(live_bundle_path, tmp_path / "bundle")
    _change_a_byte(bundle / "layer0.neighbors.npy")
    words = refused(*_arguments(bundle, tmp_path, *free_ports(3)))
    assert "layer0.neighbors.npy has sha256" in words
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("model", "name"),
    [("feature_transform", "item_ids.npy"), ("beam_retrieval", "layer0.neighbors.npy"), ("scorer", "model.onnx")],
)
def test_a_byte_that_was_changed_in_the_repository_stops_the_start(live_bundle_path, tmp_path, model, name):
    bundle = shutil.copytree(live_bundle_path, tmp_path / "bundle")
    install_bundle(bundle, tmp_path / "repository")
    path = tmp_path / "repository" / model / "1" / name
    _change_a_byte(path)
    server = TritonServer(server_options(tmp_path))
    with pytest.raises(BundleError, match=rf"{name} has sha256 .*: the file was changed after the bundle was made"):
        server.start()
    assert not _processes(tmp_path)


def test_a_target_that_does_not_exist(live_bundle_path, tmp_path):
    words = refused(*_arguments(live_bundle_path, tmp_path, *free_ports(3)), "--target", "nonsense")
    assert "target is 'nonsense'; user_encoder has configurations for embedded, onnxruntime" in words


def test_an_engine_that_does_not_exist(live_bundle_path, tmp_path):
    words = refused(*_arguments(live_bundle_path, tmp_path, *free_ports(3)), "--engine", "nonsense")
    assert "the scorer's engine is 'nonsense'; expected auto or onnxruntime or native or openvino" in words
    assert recorded_engine(tmp_path / "repository") is None


def test_the_query_command_over_both_protocols(server, live_bundle_path):
    answers = []
    for protocol, url in (("grpc", server.grpc_url), ("http", server.http_url)):
        command = [
            *(sys.executable, "-m", "nann", "query", "--ids", "1060,1063,5", "--url", url, "--json"),
            *("--protocol", protocol, "--top-k", "4", "--bundle", str(live_bundle_path)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[-1])["users"])
    assert answers[0] == answers[1]
    (answer,) = answers[0]
    assert answer["unknown_items"] == 1
    assert [item["name"] for item in answer["items"]] == [
        f"item {(item['item_id'] - 1000) // 3}" for item in answer["items"]
    ]


def test_the_query_command_reports_mistakes_in_one_line(server):
    for arguments, message in (
        (("--url", server.grpc_url, "--top-k", "0"), "top_k: 0 is out of bounds"),
        (("--url", f"127.0.0.1:{free_ports(1)[0]}"), "no retrieval server answers"),
    ):
        command = [sys.executable, "-m", "nann", "query", "--ids", "1060", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def _change_a_byte(path: Path) -> None:
    """Changes the last byte of a copy: the original may be linked into other repositories."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
