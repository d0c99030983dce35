"""A real Redis for tests, on a port of its own, which can be killed and started again with its data."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nann.errors import ConfigError
from nann.perf.servers.redis import redis_binary
from nann.python_backend.redis_connection import Redis, RedisError, open_redis
from support.ports import free_ports
from support.waiting import wait_until


def binary() -> str:
    """As for benchmarks; skips the test if there is none."""
    try:
        return redis_binary()
    except ConfigError as error:
        pytest.skip(str(error))


class RedisServer:
    """One Redis, which writes each command to a file before it answers (AOF).

    Args:
        folder: for its data.
        options: of redis-server: "--requirepass", "secret".
    """

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self.folder = folder
        self._command = [binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._command += ["--appendonly", "yes", "--save", "", *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Redis:
        """A client, with the password that the environment has."""
        return open_redis(self.url, timeout_s=10)

    def start(self) -> None:
        """Starts it, and waits until it takes commands."""
        with (self.folder / "words").open("ab") as words:
            self._process = subprocess.Popen(self._command, stdout=words, stderr=words)
        wait_until(self._answers, lambda: (self.folder / "words").read_text())

    def kill(self) -> None:
        """`kill -9`; it loses nothing that it has answered for."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "words").read_text()
        with contextlib.closing(self.client) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


@contextlib.contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A Redis that takes commands, with its data in this folder."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
