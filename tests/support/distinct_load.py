"""Constant load in which no two requests have the same answer, so that an answer to another request is recognised."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from nann.bundle import Bundle
from nann.clients import RetrievalClient
from nann.errors import NannError
from support.background import Background
from support.live_bundle import ITEMS, item_ids
from support.reference import OfflineEnsemble
from support.waiting import wait_until

_HISTORIES = 24
_MOST_USERS = 4
_TOP_KS = (3, 7, 11, 20, 33, 50)


@dataclass
class DistinctLoad(Background):
    """Threads that send requests of different users, user counts and `top_k`, until the context ends.

    Attributes:
        url: gRPC address.
        bundle: the one that is served.
        threads: how many clients.
        pause_s: of a client, after a request that failed.
        right: number of right answers.
        foreign: what was asked and what came, for each answer that is not the one to its request.
        failures: number of requests that failed, by the error's class and first words.
    """

    url: str
    bundle: Bundle
    threads: int = 4
    pause_s: float = 0.01
    right: int = 0
    foreign: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(5)
        offline = OfflineEnsemble(self.bundle)
        params = replace(self.bundle.search_params, top_k=max(_TOP_KS))
        self._users = [rng.choice(item_ids()[10:ITEMS], 8, replace=False).tolist() for _ in range(_HISTORIES)]
        self._expected = [offline.retrieve(user, params)[0] for user in self._users]
        self._lock = threading.Lock()
        super().__init__(self.threads)

    def __enter__(self) -> DistinctLoad:
        super().__enter__()
        self.wait_for_answers(20)
        return self

    def wait_for_answers(self, count: int, timeout_s: float = 90) -> float:
        """Waits until `count` more requests were answered rightly; returns the seconds it took."""
        start, enough = time.monotonic(), self.right + count
        wait_until(lambda: self.right >= enough, lambda: (self.right, self.failures), timeout_s)
        return time.monotonic() - start

    def work(self, number: int) -> None:
        rng = np.random.default_rng(number)
        with RetrievalClient(self.url, timeout_s=30, retry=False) as client:
            while not self.ended.is_set():
                chosen = rng.choice(_HISTORIES, rng.integers(1, _MOST_USERS + 1), replace=False)
                top_k = int(rng.choice(_TOP_KS))
                try:
                    result = client.retrieve([self._users[user] for user in chosen], top_k=top_k)
                except NannError as error:
                    with self._lock:
                        self.failures[f"{type(error).__name__}: {str(error)[-60:]}"] += 1
                        if "another request" in str(error):  # the client's check found what the server should not send
                            self.foreign.append(str(error))
                    time.sleep(self.pause_s)
                    continue
                expected = np.stack([self._expected[user][:top_k] for user in chosen])
                with self._lock:
                    if np.array_equal(result.item_ids, expected):
                        self.right += 1
                    else:
                        self.foreign.append(f"asked {list(expected.shape)}, got {list(result.item_ids.shape)}")
