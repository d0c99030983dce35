"""A load of users who wait for each answer, look at it for a while, and ask again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nann.clients import RetrievalClient
from nann.errors import NannError


@dataclass(frozen=True)
class Answer:
    """When a request ended, in seconds of the monotonic clock, how long it took, and what went wrong, if anything."""

    at_s: float
    took_s: float
    error: NannError | None


class ThinkingUsers:
    """As many threads as there are users now; a context manager that ends them.

    Args:
        url: `host:port` of gRPC.
        histories: of users, asked for in turn.
        think_s: mean of the exponential time between an answer and the next request.
    """

    def __init__(self, url: str, histories: Sequence[Sequence[int]], think_s: float) -> None:
        self.answers: list[Answer] = []
        self._url, self._histories, self._think_s = url, histories, think_s
        self._users: list[tuple[threading.Thread, threading.Event]] = []

    def __enter__(self) -> ThinkingUsers:
        return self

    def __exit__(self, *_: object) -> None:
        self.set(0)

    def set(self, count: int) -> None:
        """Changes the number of users; those who go get their last answer."""
        while len(self._users) < count:
            leaves = threading.Event()
            thread = threading.Thread(target=self._ask, args=(len(self._users), leaves))
            self._users.append((thread, leaves))
            thread.start()
        going, self._users = self._users[count:], self._users[:count]
        for _, leaves in going:
            leaves.set()
        for thread, _ in going:
            thread.join()

    def took_s(self, begin_s: float, end_s: float) -> list[float]:
        """How long the requests took that ended in this time."""
        return [answer.took_s for answer in list(self.answers) if begin_s <= answer.at_s < end_s]

    def failures(self) -> list[Answer]:
        """Requests without an answer."""
        return [answer for answer in self.answers if answer.error is not None]

    def _ask(self, number: int, leaves: threading.Event) -> None:
        rng = np.random.default_rng(number)
        with RetrievalClient(self._url, timeout_s=20, retry=False) as client:
            while not leaves.wait(rng.exponential(self._think_s)):
                begin_s, error = time.monotonic(), None
                try:
                    client.retrieve(self._histories[rng.integers(len(self._histories))])
                except NannError as failure:
                    error = failure
                end_s = time.monotonic()
                self.answers.append(Answer(end_s, end_s - begin_s, error))
