"""`nann serve` as a process of its own, with its supervisor."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nann.python_backend.server.processes import DEAD, child_processes, served_model
from support.ports import free_ports
from support.waiting import wait_until


@dataclass
class ServeProcess:
    """A ready server: the process of `nann serve`, its addresses, and what it has said."""

    process: subprocess.Popen
    http_url: str
    grpc_url: str
    output: Path

    @property
    def triton(self) -> int:
        """Process id of tritonserver."""
        (pid,) = (pid for pid in child_processes(self.process.pid) if "tritonserver" in _command(pid))
        return pid


def stubs(triton: int) -> dict[str, int]:
    """Process id by model, of the living Python processes of a tritonserver."""
    living = (pid for pid, state in child_processes(triton).items() if state != DEAD)
    return {served[0]: pid for pid in living if (served := served_model(pid)) is not None}


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@contextlib.contextmanager
def serving(bundle: Path, folder: Path) -> Iterator[ServeProcess]:
    """Serves a bundle, with its repository and log in `folder`."""
    http, grpc, metrics = free_ports(3)
    command = [sys.executable, "-m", "nann", "serve", "--bundle", str(bundle)]
    command += ["--repository", str(folder / "repository"), "--log-file", str(folder / "log")]
    command += ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    output = folder / "output"
    with output.open("w") as words:
        process = subprocess.Popen(command, stdout=words, stderr=words)

    def is_ready() -> bool:
        assert process.poll() is None, output.read_text()
        return "Ctrl-C stops the server" in output.read_text()

    try:
        wait_until(is_ready)
        yield ServeProcess(process, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", output)
    finally:
        process.terminate()
        process.wait(timeout=120)
