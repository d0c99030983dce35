"""TCP ports that test runs on the same machine do not share, however many run at the same time."""

from __future__ import annotations

import itertools
import socket
from functools import cache

_FIRST, _LAST, _BLOCK = 10_000, 30_000, 200
"""Below the range from which Linux itself assigns ports, for clients among others (32768 and up)."""


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that are free and that no other test run gets."""
    return list(itertools.islice((port for port in _own_ports()[1] if _can_listen(port)), count))


@cache
def _own_ports() -> tuple[socket.socket, itertools.cycle[int]]:
    """A block of ports for this process: it listens on the first until it ends, which reserves the others."""
    for first in range(_FIRST, _LAST, _BLOCK):
        lock = socket.socket()
        try:
            lock.bind(("127.0.0.1", first))
            lock.listen()
        except OSError:
            lock.close()
            continue
        return lock, itertools.cycle(range(first + 1, first + _BLOCK))
    raise RuntimeError(f"no block of {_BLOCK} ports from {_FIRST} to {_LAST} is free; end some of the test runs")


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT does not matter
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
