"""Constant load on a live server; each answer is compared with the offline answers of several bundles."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nann.bundle import Bundle
from nann.clients import RetrievalClient
from nann.errors import NannError
from nann.python_backend.server.triton import TritonServer
from support.background import Background
from support.live_bundle import ITEMS, item_ids
from support.reference import OfflineEnsemble
from support.serve_process import Serve
from support.waiting import wait_until

USERS = 6
MIXED = "mixed"
"""Counts answers that no single bundle gives."""


@dataclass
class Failure:
    at_s: float
    error: NannError


@dataclass
class Load(Background):
    """Threads that send requests with almost no pause, until the context ends.

    `answers` counts answers by name of the bundle that gives exactly this answer; `times_s` holds when each came.
    """

    url: str
    bundles: dict[str, Bundle]
    threads: int = 2
    protocol: str = "grpc"
    retry: bool = False
    answers: Counter = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    times_s: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(3)
        self._users = [item_ids()[rng.integers(10, ITEMS, rng.integers(3, 12))].tolist() for _ in range(USERS)]
        offline = {name: OfflineEnsemble(bundle) for name, bundle in self.bundles.items()}
        self._expected = {name: [oracle.retrieve(user)[:2] for user in self._users] for name, oracle in offline.items()}
        super().__init__(self.threads)

    def __enter__(self) -> Load:
        super().__enter__()
        self.wait_for(lambda: sum(self.answers.values()) >= 2 * self.threads)
        return self

    def wait_for(self, condition) -> None:
        wait_until(condition, lambda: (self.answers, self.failures[-3:]))

    def more(self, count: int = 5) -> None:
        """Waits for `count` more answers to requests that are sent after this call."""
        enough = sum(self.answers.values()) + self.threads + count
        self.wait_for(lambda: sum(self.answers.values()) >= enough)

    def work(self, number: int) -> None:
        with RetrievalClient(self.url, self.protocol, timeout_s=30, retry=self.retry) as client:
            turn = number
            while not self.ended.is_set():
                turn += 1
                try:
                    result = client.retrieve(self._users[turn % USERS])
                except NannError as error:
                    self.failures.append(Failure(time.monotonic(), error))
                    time.sleep(0.01)
                    continue
                name = self._bundle_of(turn % USERS, result)
                self.answers[name] += 1
                self.times_s.append((time.monotonic(), name))
                time.sleep(0.005)

    def _bundle_of(self, user: int, result) -> str:
        for name, expected in self._expected.items():
            items, scores = expected[user]
            if np.array_equal(result.item_ids[0], items) and np.allclose(result.scores[0], scores, atol=1e-5):
                return name
        return MIXED


@contextlib.contextmanager
def asked_for_readiness(server: TritonServer | Serve) -> Iterator[list[bool]]:
    """The answers of /v2/health/ready, asked again and again while the context lasts."""
    answers: list[bool] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.01):
            answers.append(server.is_ready())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()
