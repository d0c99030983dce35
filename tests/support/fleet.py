"""Several servers on this machine, and the real Envoy before them with the project's own configuration."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nann.python_backend.server.triton import TritonServer
from support.ports import free_ports
from support.serve_process import Serve, serving
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "deploy" / "envoy"
KEY = "0123abc"


def endpoints_module():
    """deploy/envoy/endpoints.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("endpoints", RECIPE / "endpoints.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def servers(bundle: Path, folder: Path, count: int) -> Iterator[list[Serve]]:
    """Ready servers of one bundle, each with a repository of its own; they start at the same time."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        folders = [folder / f"server{number}" for number in range(count)]
        for one in folders:
            one.mkdir()
        yield list(pool.map(lambda one: stack.enter_context(serving(bundle, one)), folders))


def kill(serve: Serve) -> None:
    """`kill -9` of the command and of its server."""
    triton = serve.triton
    serve.process.kill()
    serve.process.wait(timeout=60)
    with contextlib.suppress(ProcessLookupError):
        os.kill(triton, signal.SIGKILL)


@dataclass
class Envoy:
    """A running Envoy.

    Attributes:
        grpc_url: `host:port` that takes gRPC.
        http_url: `host:port` that takes HTTP.
        admin_url: `host:port` of its own state.
        folder: with the files that say where the servers are.
    """

    grpc_url: str
    http_url: str
    admin_url: str
    folder: Path

    def send_to(self, fleet: Sequence[Serve | TritonServer]) -> None:
        """Replaces the servers that get requests."""
        endpoints_module().write(self.folder, [_address(one) for one in fleet])

    def healthy(self) -> int:
        """How many servers it takes for healthy, for gRPC and for HTTP."""
        with urllib.request.urlopen(f"http://{self.admin_url}/clusters?format=json", timeout=30) as answer:
            known = json.load(answer)["cluster_statuses"]
        hosts = {one["name"]: one.get("host_statuses", []) for one in known}
        healthy = {"eds_health_status": "HEALTHY"}
        return min(sum(host["health_status"] == healthy for host in hosts[name]) for name in ("nann_grpc", "nann_http"))


def _address(serve: Serve | TritonServer) -> tuple[str, int, int]:
    host, http = serve.http_url.split(":")
    return host, int(http), int(serve.grpc_url.split(":")[1])


@contextlib.contextmanager
def envoy_before(fleet: Sequence[Serve | TritonServer], folder: Path) -> Iterator[Envoy]:
    """The project's envoy.yaml with ports and folder of the test's own; ready once it has found all servers healthy."""
    grpc, http, admin = free_ports(3)
    text = (RECIPE / "envoy.yaml").read_text().replace("/etc/envoy/", f"{folder}/")
    for port, ours in ((8001, grpc), (8000, http), (9901, admin)):
        assert text.count(f"port_value: {port} ") == 1
        text = text.replace(f"port_value: {port} ", f"port_value: {ours} ")
    (folder / "envoy.yaml").write_text(text)
    envoy = Envoy(*(f"127.0.0.1:{port}" for port in (grpc, http, admin)), folder)
    envoy.send_to(fleet)
    command = [str(Path(sys.executable).parent / "envoy"), "--config-path", str(folder / "envoy.yaml")]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--disable-hot-restart", "--concurrency", "1"], stdout=log, stderr=log)

    def all_healthy() -> bool:
        assert process.poll() is None, (folder / "envoy.log").read_text()[-3000:]
        with contextlib.suppress(OSError):
            return envoy.healthy() == len(fleet)
        return False

    try:
        wait_until(all_healthy)
        yield envoy
    finally:
        process.terminate()
        process.wait(timeout=60)


def requests_of(serve: Serve) -> int:
    """How many requests a server has answered."""
    host, http, _ = _address(serve)
    with urllib.request.urlopen(f"http://{host}:{http}/v2/models/nann/stats", timeout=30) as answer:
        (model,) = json.load(answer)["model_stats"]
    return model["inference_count"]


@contextlib.contextmanager
def tcp_proxy(urls: Sequence[str]) -> Iterator[str]:
    """Sends each connection, whatever it carries, to the next of the servers."""
    turns = itertools.cycle(urls)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            host, port = next(turns).split(":")
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=_copy, args=(server, self.request))
                back.start()
                _copy(self.request, server)
                back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Proxy(("127.0.0.1", 0), Connection) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{proxy.server_address[1]}"
        proxy.shutdown()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
