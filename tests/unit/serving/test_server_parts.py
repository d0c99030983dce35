import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.waiting import wait_until

from nann.errors import ConfigError, ServerError
from nann.python_backend.server import process_group, triton_install
from nann.python_backend.server import triton as server_module
from nann.python_backend.server.log import failure_lines
from nann.python_backend.server.ports import check_ports, free_ports
from nann.python_backend.server.process_group import ProcessGroup
from nann.python_backend.server.triton import ServerOptions, TritonServer, server_command
from nann.python_backend.server.triton_install import TritonInstall, find_triton


def test_ports_that_are_taken_equal_or_no_ports():
    first, second = free_ports(2)
    check_ports("127.0.0.1", {"http-port": first, "grpc-port": second})
    with pytest.raises(ConfigError, match=f"--http-port and --grpc-port are both {first}"):
        check_ports("127.0.0.1", {"http-port": first, "grpc-port": first})
    with pytest.raises(ConfigError, match="--http-port is 70000; expected 1 to 65535"):
        check_ports("127.0.0.1", {"http-port": 70000})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"port {port} on 127.0.0.1 can't be used: Address already in use; .* choose another with --grpc-port"
        with pytest.raises(ConfigError, match=message):
            check_ports("127.0.0.1", {"grpc-port": port})


def test_free_ports_differ():
    assert len(set(free_ports(5))) == 5


def test_failure_lines_are_what_did_not_load_without_call_stacks():
    reason = "failed to load 'scorer' version 1: Internal: BundleError: model.onnx has 3 bytes"
    log = [
        'I1122 12:30:00.1 42 server.cc:1] "hello"',
        'E1122 12:30:00.1 42 cuda.cc:1] "CudaDriverHelper has not been initialized."',
        'E1122 12:30:00.2 42 stub.cc:1] "ERROR: Failed to create instance: BundleError: model.onnx has 3 bytes"',
        f'E1122 12:30:00.2 42 lifecycle.cc:1] "{reason}\\n\\nAt:\\n  /somewhere/bundle.py(141): open\\n"',
        f'E1122 12:30:00.3 42 lifecycle.cc:1] "{reason}"',
        "| scorer | UNAVAILABLE |",
    ]
    assert failure_lines(log) == [reason]
    assert failure_lines(log[:3]) == ["ERROR: Failed to create instance: BundleError: model.onnx has 3 bytes"]
    assert failure_lines(["tritonserver: error while loading shared libraries: libx.so"]) == [
        "tritonserver: error while loading shared libraries: libx.so"
    ]


def test_the_command_binds_to_the_host_and_restricts_what_clients_do_not_need(tmp_path):
    install = TritonInstall(Path("/t/tritonserver"), Path("/t/python"), Path("/t/stub"), Path("/t/libs"))
    options = ServerOptions(tmp_path, http_port=1, grpc_port=2, metrics_port=3, admin_key="secret")
    command = server_command(options, install, Path("/r"), tmp_path, "r-", "placeholder")
    assert command[0] == "/t/tritonserver"
    for flag in ("http-address=127.0.0.1", "grpc-address=127.0.0.1", "metrics-address=127.0.0.1"):
        assert f"--{flag}" in command
    assert "--model-repository=/r" in command
    for flag in ("http-port=1", "grpc-port=2", "metrics-port=3", "model-config-name=embedded"):
        assert f"--{flag}" in command
    restricted = "shared-memory,model-repository,trace,logging:nann-admin-key=placeholder"
    assert sum(flag.endswith(restricted) for flag in command) == 2
    assert "secret" not in f"{command} {options}"
    closed = server_command(replace(options, http_inference=False), install, Path("/r"), tmp_path, "r-", "placeholder")
    assert set(closed) - set(command) == {f"--http-restricted-api={restricted.replace(':', ',inference:')}"}


def test_the_wheels_triton_is_laid_out_for_this_python(tmp_path):
    install = find_triton()
    backends = install.make_backend_directory(tmp_path / "backends")
    assert os.access(backends / "python" / "triton_python_backend_stub", os.X_OK)
    assert (backends / "python" / "libtriton_python.so").exists()
    environment = install.environment()
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert str(install.libraries) in environment["LD_LIBRARY_PATH"].split(os.pathsep)


def test_in_a_container_its_own_triton_is_used(monkeypatch, tmp_path):
    backend = tmp_path / "backends" / "python"
    for path in (tmp_path / "bin" / "tritonserver", backend / "triton_python_backend_stub"):
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "backends" / "tensorrt").mkdir()
    monkeypatch.setattr(triton_install, "CONTAINER", tmp_path)
    install = find_triton()
    assert install.server == tmp_path / "bin" / "tritonserver"
    assert install.make_backend_directory(tmp_path / "made") == tmp_path / "backends"
    assert not (tmp_path / "made").exists()
    assert str(tmp_path) not in install.environment()["LD_LIBRARY_PATH"]
    for target in ("tensorrt", "torch", "embedded"):
        install.check_target(target)
    with pytest.raises(
        ServerError,
        match=r"has no onnxruntime backend; start it with `nann serve --target embedded` or torch, or in a container",
    ):
        install.check_target("onnxruntime")


def test_what_is_missing_for_a_server_is_said(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pytriton", None)
        with pytest.raises(ModuleNotFoundError, match="No module named 'pytriton'"):
            find_triton()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        with pytest.raises(ModuleNotFoundError, match="No module named 'onnx'"):
            find_triton().check_target("torch")
    with monkeypatch.context() as patch:
        patch.setattr(triton_install, "_PYTHON", "3.99")
        with pytest.raises(ServerError, match=r"no tritonserver/python_backend_stubs/3\.99/.*Python 3\.10 to 3\.12"):
            find_triton()
    with monkeypatch.context() as patch:
        patch.setattr(triton_install, "_python_library_folders", list)
        patch.setattr(triton_install.ctypes.util, "find_library", lambda name: None)
        with pytest.raises(ServerError, match=r"needs the shared library libpython3\.\d+\.so\.1\.0"):
            find_triton()
    with monkeypatch.context() as patch:
        patch.setattr("numpy.__version__", "2.1.0")
        with pytest.raises(ServerError, match=r"numpy 2\.1\.0 is installed; .* needs numpy < 2"):
            find_triton()


def fake_triton(tmp_path: Path, script: str) -> TritonInstall:
    """A tritonserver that is a shell script."""
    server = tmp_path / "tritonserver"
    server.write_text(f"#!/bin/sh\n{script}\n")
    server.chmod(0o755)
    (tmp_path / "python").mkdir()
    return TritonInstall(server, tmp_path / "python", server, tmp_path)


def options(tmp_path: Path, **more: object) -> ServerOptions:
    http, grpc, metrics = free_ports(3)
    return ServerOptions(tmp_path, "127.0.0.1", http, grpc, metrics, log_file=tmp_path / "logs" / "log", **more)


def test_a_server_that_can_not_start_says_why(tmp_path):
    install = fake_triton(tmp_path, "echo 'E1122 12:30:00.1 42 main.cc:1] \"no such model\"'; exit 1")
    server = TritonServer(options(tmp_path), install)
    with pytest.raises(ServerError, match=r"Triton could not start; its log is .*log:\n  no such model"):
        server.start()
    assert server.pid is None
    assert "no such model" in (tmp_path / "logs" / "log").read_text()


def test_a_server_that_is_never_ready_is_stopped(tmp_path):
    install = fake_triton(tmp_path, "sleep 60 & sleep 60")
    server = TritonServer(options(tmp_path, start_timeout_s=0.3, stop_grace_s=0), install)
    with pytest.raises(ServerError, match="was not ready after 0 s"):
        server.start()
    assert server.pid is None


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'E1122 12:30:00.1 42 lifecycle.cc:1] \"failed to load scorer: no such file\"'; exec sleep 60",
            r"since a model did not load; its log is .*log:\n  failed to load scorer: no such file",
        ),
        ("sh -c 'exit 1' & exec sleep 60", "since the process of a model has ended"),
    ],
)
def test_what_keeps_a_server_from_getting_ready_is_said_at_once(tmp_path, monkeypatch, script, message):
    monkeypatch.setattr(server_module, "_OBSTACLE_S", 0.2)
    server = TritonServer(options(tmp_path, stop_grace_s=0), fake_triton(tmp_path, script))
    with pytest.raises(ServerError, match=f"Triton can't get ready, {message}"):
        server.start()


def test_a_path_that_a_shell_would_split(tmp_path, monkeypatch):
    """Triton starts the processes of its models with a shell, so it gets a link to the repository."""
    folder = tmp_path / "a folder; of $HOME"
    folder.mkdir()
    install = fake_triton(tmp_path, 'echo "$@"; readlink -f "$PWD/repository"; exit 1')
    server = TritonServer(options(folder), install)
    with pytest.raises(ServerError, match="Triton could not start"):
        server.start()
    command, linked = (folder / "logs" / "log").read_text().splitlines()
    assert re.search(r"--model-repository=/\S*/nann-triton-\w+/repository ", command)
    assert linked == str(folder)
    monkeypatch.setattr(server_module.tempfile, "tempdir", str(folder))
    with pytest.raises(
        ConfigError, match=r"TMPDIR is '.*a folder; of .*', which Triton can't use; set it to a path of"
    ):
        server.start()


def test_readiness_is_asked_of_the_server_itself(tmp_path, monkeypatch):
    """Not of a proxy that the environment names."""

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/v2/health/ready" else 404)
            self.end_headers()

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.delenv("no_proxy", raising=False)
    server = TritonServer(options(tmp_path))
    assert not server.is_ready()
    with HTTPServer(("127.0.0.1", server.options.http_port), Ready) as http:
        thread = threading.Thread(target=http.handle_request)
        thread.start()
        assert server.is_ready()
        thread.join()


def test_a_server_that_stops_by_itself_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module.TritonServer, "is_ready", lambda self: True)
    server = TritonServer(options(tmp_path), fake_triton(tmp_path, "sleep 0.2"))
    with pytest.raises(ServerError, match="Triton stopped by itself"), server:
        server.wait()
    server.stop()  # a second stop does nothing


def test_the_whole_group_stops(tmp_path):
    command = ["sh", "-c", "trap '' TERM; sleep 60 & echo started; wait"]
    group = ProcessGroup.start(command, dict(os.environ), tmp_path, tmp_path / "region-")
    with group.output as output:
        assert output.readline() == "started\n"
        group.stop(grace_s=0.1)
    assert not group.is_alive()
    assert not process_group._group_lives(group.pid)


START_ONE = """
import os, sys, time
from pathlib import Path
from nann.python_backend.server.process_group import ProcessGroup

command = ["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait"]
group = ProcessGroup.start(command, dict(os.environ), Path(sys.argv[1]), Path(sys.argv[2]))
print(group.pid, int(group.output.readline()), flush=True)
time.sleep(60)
"""


def test_nothing_of_the_group_outlives_a_killed_parent(tmp_path):
    """Also what ignores SIGTERM, and what runs in the background; its folder and its shared memory go too."""
    folder, region = tmp_path / "a folder", tmp_path / "region-"
    folder.mkdir()
    (folder / "file").touch()
    for name in ("region-1", "region-2", "another"):
        (tmp_path / name).touch()
    command = [sys.executable, "-c", START_ONE, str(folder), str(region)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    wait_until(lambda: not any(_runs(pid) for pid in pids))
    wait_until(lambda: [path.name for path in tmp_path.iterdir()] == ["another"])


def _runs(pid: int) -> bool:
    try:
        # A zombie has stopped, but its new parent may not have waited for it yet.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
