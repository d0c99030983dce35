"""`nann serve` as a process of its own, with its words and the processes of its server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nann.python_backend.server.processes import DEAD, child_processes, served_model
from support.own_server import STEPS
from support.ports import free_ports
from support.waiting import wait_until


@dataclass
class Serve:
    """A running `nann serve`.

    Attributes:
        process: the command.
        http_url: `host:port` of HTTP.
        grpc_url: `host:port` of gRPC.
        folder: with its repository, and its output in the file "words".
    """

    process: subprocess.Popen
    http_url: str
    grpc_url: str
    folder: Path

    @property
    def words(self) -> str:
        """What it said."""
        return (self.folder / "words").read_text()

    @property
    def triton(self) -> int:
        """Process id of tritonserver."""
        self.check_runs()
        (triton,) = child_processes(self.process.pid)
        return triton

    @property
    def stubs(self) -> dict[str, int]:
        """Process ids of the Python processes, by model."""
        return stubs(self.triton)

    def is_ready(self) -> bool:
        """Whether its health check says so."""
        self.check_runs()
        try:
            with urllib.request.urlopen(f"http://{self.http_url}/v2/health/ready", timeout=30):
                return True
        except urllib.error.HTTPError:
            return False
        except OSError as error:
            wait_until(lambda: self.process.poll() is not None, error)
            self.check_runs()
            raise

    def check_runs(self) -> None:
        """Fails with its last words if it has ended."""
        if self.process.poll() is not None:
            log = (self.folder / "log").read_text(errors="replace").splitlines()
            raise AssertionError("\n".join([f"ended with {self.process.returncode}", self.words, *log[-60:]]))

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(timeout=120)


def stubs(triton: int) -> dict[str, int]:
    """Process ids of the living Python processes of a tritonserver, by model."""
    living = (pid for pid, state in child_processes(triton).items() if state != DEAD)
    return {served[0]: pid for pid in living if (served := served_model(pid)) is not None}


@contextlib.contextmanager
def serving(bundle: Path, folder: Path, *options: str, steps: str = STEPS) -> Iterator[Serve]:
    """A ready `nann serve` of this bundle, with its repository in this folder, and these options too."""
    http, grpc, metrics = free_ports(3)
    command = [sys.executable, "-m", "nann", "serve", "--bundle", str(bundle)]
    command += ["--repository", str(folder / "repository"), "--log-file", str(folder / "log")]
    command += ["--steps", steps, *options]
    command += ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    with (folder / "words").open("w") as words:
        process = subprocess.Popen(command, stdout=words, stderr=words)
    serve = Serve(process, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", folder)

    def is_up() -> bool:
        serve.check_runs()
        return "Ctrl-C stops the server" in serve.words

    try:
        wait_until(is_up)
        yield serve
    finally:
        process.terminate()
        process.wait(timeout=120)
