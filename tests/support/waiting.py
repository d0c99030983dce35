"""Waits for events outside the test's control, however slow the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.01
_clock = time.monotonic
"""A reference of its own, since tests may replace `time.monotonic` for the code under test."""


def wait_until(condition: Callable[[], T], what: object = "", timeout_s: float = 90) -> T:
    """Waits for a state that a server, a thread or a process reaches by itself; returns what `condition` returned.

    Args:
        condition: returns something true once the state is reached.
        what: for the message of a failure; a function is called to get it.
        timeout_s: generous, as it only ends a test that hangs.
    """
    deadline = _clock() + timeout_s
    while not (reached := condition()):
        assert _clock() < deadline, f"not within {timeout_s:.0f} s; {what() if callable(what) else what}"
        time.sleep(_PAUSE_S)
    return reached
