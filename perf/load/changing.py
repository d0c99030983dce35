"""Load on a server whose items change: searching clients, items that are added, items that are deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from nann.scorer import Float32Array
from nann.signature import CHANGED_ITEM_IDS, DELETE_ITEMS, ITEM_LIGHT, ITEM_ROW, UPSERT_ITEMS

from ...clients import RetrievalClient
from ...python_backend.server.control import ModelControl

_TIMEOUT_S = 60.0
_GIVE_UP_NS = 30_000_000_000
_WATCHED_AT_ONCE = 8
"""Items that a client looks for in one request, each for its user."""
Histories = Sequence[Sequence[int]]


def upsert(control: ModelControl, ids: Sequence[int], vectors: Float32Array) -> None:
    """Adds items whose rows and light vectors are the same, `float32[M, d]`."""
    tensors = {CHANGED_ITEM_IDS: _texts(ids), ITEM_ROW: vectors[None], ITEM_LIGHT: vectors[None]}
    control.catalog(UPSERT_ITEMS, tensors)


def delete(control: ModelControl, ids: Sequence[int]) -> None:
    """Deletes items."""
    control.catalog(DELETE_ITEMS, {CHANGED_ITEM_IDS: _texts(ids)})


def _texts(ids: Sequence[int]) -> Any:
    return np.array([[str(each) for each in ids]], object)


@dataclass
class Searching:
    """A closed loop of clients in this process.

    Attributes:
        url: `host:port` of gRPC.
        histories: asked for in turn; each client begins elsewhere.
        users: in a request.
        options: of `RetrievalClient.retrieve`.
        answered: gets the histories, when they were asked for (ns, monotonic) and the answer, from several threads.
    """

    url: str
    histories: Histories
    users: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    answered: Callable[[Histories, int, Any], None] = lambda *_: None

    @contextmanager
    def running(self, clients: int) -> Iterator[list[float]]:
        """Asks until the block ends; yields the latencies in ms, which grow."""
        stop, latencies_ms = threading.Event(), list[float]()
        with ThreadPoolExecutor(clients) as pool:
            asking = [
                pool.submit(self._ask, stop, latencies_ms, number * len(self.histories) // clients)
                for number in range(clients)
            ]
            try:
                yield latencies_ms
            finally:
                stop.set()
            for each in asking:
                each.result()

    def _ask(self, stop: threading.Event, latencies_ms: list[float], at: int) -> None:
        with RetrievalClient(self.url, timeout_s=_TIMEOUT_S, retry=False) as client:
            while not stop.is_set():
                asked = [self.histories[(at + user) % len(self.histories)] for user in range(self.users)]
                at += self.users
                begun_ns = time.monotonic_ns()
                answer = client.retrieve(asked, **self.options)
                latencies_ms.append((time.monotonic_ns() - begun_ns) / 1e6)
                self.answered(asked, begun_ns, answer)


@dataclass(frozen=True)
class NewItems:
    """Items that come at a rate, each with a user whose best item it is.

    Attributes:
        ids: of the items; `vectors` (`float32[M, d]`) and `histories` are theirs.
        per_s: the rate.
    """

    ids: Sequence[int]
    vectors: Float32Array
    histories: Histories
    per_s: float

    def watched(self, control: ModelControl, url: str, probers: int) -> tuple[list[float], list[float], float]:
        """Adds them, while clients that ask as fast as they can look for as many as they are able to.

        Returns:
            ms from the begin of an upsert to the first answer with the item; ms of each upsert; items per second.
        """
        begun_ns: dict[int, int] = {}
        upserts_ms: list[float] = []
        next_to_watch = iter(range(len(self.ids)))
        turn = threading.Lock()

        def probe() -> list[float]:
            found_ms = []
            with RetrievalClient(url, timeout_s=_TIMEOUT_S, retry=False) as client:
                client.retrieve(self.histories[0])
                while numbers := self._unsent(next_to_watch, begun_ns, turn):
                    found_ms += self._until_found(client, numbers, begun_ns)
            return found_ms

        with ThreadPoolExecutor(probers) as pool:
            probing = [pool.submit(probe) for _ in range(probers)]
            time.sleep(0.5)
            start_s, sent = time.monotonic(), 0
            while sent < len(self.ids):
                due = min(len(self.ids), 1 + int((time.monotonic() - start_s) * self.per_s))
                if due == sent:
                    time.sleep(0.1 / self.per_s)
                    continue
                now_ns = time.monotonic_ns()
                begun_ns.update(dict.fromkeys(range(sent, due), now_ns))
                upsert(control, self.ids[sent:due], self.vectors[sent:due])
                upserts_ms.append((time.monotonic_ns() - now_ns) / 1e6)
                sent = due
            rate = len(self.ids) / (time.monotonic() - start_s)
            return [ms for each in probing for ms in each.result()], upserts_ms, rate

    @staticmethod
    def _unsent(numbers: Iterator[int], begun_ns: dict[int, int], turn: threading.Lock) -> list[int]:
        """The next items that are not sent yet, for one client alone."""
        with turn:
            return list(islice((number for number in numbers if number not in begun_ns), _WATCHED_AT_ONCE))

    def _until_found(self, client: RetrievalClient, numbers: list[int], begun_ns: dict[int, int]) -> list[float]:
        """Ms of each; infinite if it is given up."""
        left, found_ms = set(numbers), list[float]()
        while left:
            asked = sorted(left)
            answer = client.retrieve([self.histories[number] for number in asked])
            now_ns = time.monotonic_ns()
            for number, items in zip(asked, answer.item_ids, strict=True):
                since_ns, is_there = now_ns - begun_ns.get(number, now_ns), self.ids[number] in items
                if is_there or since_ns > _GIVE_UP_NS:
                    left.discard(number)
                    found_ms.append(since_ns / 1e6 if is_there else float("inf"))
        return found_ms


@dataclass
class Deletions:
    """Deletes items that searches find, and counts answers that hold one whose deletion was acknowledged before.

    Attributes:
        control: of the server.
        searches: users that were answered.
        acknowledged_ns: when the deletion of each item was acknowledged, on the monotonic clock.
        returned: deleted items in answers to searches that began after that.
    """

    control: ModelControl
    searches: int = 0
    acknowledged_ns: dict[int, int] = field(default_factory=dict)
    returned: int = 0
    _best: list[int] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def look(self, asked: Histories, begun_ns: int, answer: Any) -> None:
        """Checks an answer; for `Searching.answered`."""
        late = sum(self.acknowledged_ns.get(item, begun_ns) < begun_ns for item in answer.item_ids.ravel().tolist())
        with self._turn:
            self.searches += len(asked)
            self.returned += late
            self._best = answer.item_ids[:, 0].tolist()

    def run(self, searches: int, per_s: float) -> None:
        """Deletes the best item of a user who was answered last, again and again, until there were so many searches."""
        while self.searches < searches:
            with self._turn:
                ids = [item for item in self._best if item > 0 and item not in self.acknowledged_ns][:1]
            if ids:
                delete(self.control, ids)
                self.acknowledged_ns[ids[0]] = time.monotonic_ns()
            time.sleep(1 / per_s)
