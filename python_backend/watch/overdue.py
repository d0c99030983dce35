"""Ends this process if a batch takes far too long: `nann serve` loads its model again, as after any crash.

A heartbeat shows that one of several processes of a model answers, not that each does. So each looks after itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PERIOD_S = 1.0


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # Triton's logger would lose it: it has a queue


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Overdue:
    """Watches the batches of one thread.

    Args:
        limit_s: longer than anything that a batch may take.
        say: gets the last words, and must be done with them when it returns.
        end: ends the process.
        period_s: how often to look.
    """

    def __init__(
        self,
        limit_s: float,
        say: Callable[[str], None] = _print,
        end: Callable[[], object] = _end,
        period_s: float = PERIOD_S,
    ) -> None:
        self._limit_s = limit_s
        self._say = say
        self._end = end
        self._period_s = period_s
        self._began: float | None = None
        self._seen: float | None = None
        self._paused_s, self._looked = 0.0, time.monotonic()
        self._closing = threading.Event()
        threading.Thread(target=self._run, name="overdue", daemon=True).start()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Around the work on a batch."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    def close(self) -> None:
        """Watches no more."""
        self._closing.set()

    def took_s(self, now: float) -> float:
        """For how long the batch has been worked on, without pauses of everything; 0: there is none.

        `now` is that of `time.monotonic`.
        """
        began = self._began
        if began != self._seen:
            self._seen, self._paused_s = began, 0.0
        if now - self._looked > 2 * self._period_s:
            self._paused_s += now - self._looked  # we stood still too, as in a paused container
        self._looked = now
        return 0.0 if began is None else now - began - self._paused_s

    def _run(self) -> None:
        while not self._closing.wait(self._period_s):
            if (took_s := self.took_s(time.monotonic())) > self._limit_s:
                self._say(
                    f"a batch has taken {took_s:.1f} s, and may take {self._limit_s:.1f}: this process hangs, and ends"
                )
                self._end()
                return
