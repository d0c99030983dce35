"""Waiting for what happens by itself, however slow the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.01
_clock = time.monotonic
"""Kept here, so that a test may replace the clock of the code that it waits for."""


def wait_until(condition: Callable[[], T], what: object = "", timeout_s: float = 90) -> T:
    """Waits for a state that a server, a thread or a process reaches by itself; returns what `condition` returned.

    Args:
        condition: whether it is reached.
        what: told where it is not; a function is called for it.
        timeout_s: how long at most: no test is about this time.
    """
    deadline = _clock() + timeout_s
    while not (reached := condition()):
        assert _clock() < deadline, f"not within {timeout_s:.0f} s; {what() if callable(what) else what}"
        time.sleep(_PAUSE_S)
    return reached
