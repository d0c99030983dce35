"""What a test does in threads of its own until a context ends."""

from __future__ import annotations

import threading
from typing import TypeVar

BackgroundT = TypeVar("BackgroundT", bound="Background")


class Background:
    """Runs `work` in some threads from the begin of the context to its end.

    Attributes:
        ended: is set at the end of the context; `work` returns soon after that.
    """

    def __init__(self, threads: int = 1) -> None:
        self.ended = threading.Event()
        self._threads = [threading.Thread(target=self.work, args=(number,)) for number in range(threads)]

    def work(self, number: int) -> None:
        """What thread `number` does."""
        raise NotImplementedError

    def __enter__(self: BackgroundT) -> BackgroundT:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()
