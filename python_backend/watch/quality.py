"""Live coverage@K: for a share of the answered users all items are scored, in the background."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import NannError
from nann.exact_search import exact_search
from nann.item_rows import ItemRows
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import UserBatch
from nann.signature import PADDING_ITEM

from .publisher import MetricsPublisher

_QUEUE_SIZE = 16
_BLOCK_ITEMS = 512  # a served round waits for at most one block of the monitor


@dataclass(frozen=True)
class _Sample:
    """A user (a batch of one, their state in host memory), the answer `int32[K]`, and the corpus as it was."""

    user: UserBatch
    items: Int32Array
    item_count: int
    rows: ItemRows | None


class QualityMonitor:
    """Compares a share of the answers with the exact ones and counts the items that they miss.

    Its cost is bounded. Users that come while its queue is full are dropped and counted. It scores a block of items,
    then pauses, so that its scorer calls take at most `load` of the time. A busy scorer makes the pauses longer.

    Args:
        make_scorer: makes a scorer like the one that serves, from the items' rows (`nann.item_rows`) if it needs them.
        share: share of the answered users to compare, from 0 to 1.
        load: largest share of the time that its scorer calls may take, above 0 and at most 1.
        publisher: reports the counts.
    """

    def __init__(
        self,
        make_scorer: Callable[[ItemRows | None], Scorer],
        share: float,
        load: float,
        publisher: MetricsPublisher,
    ) -> None:
        self._make_scorer = make_scorer
        self._load = load
        self._share = share
        self._random = random.Random()  # noqa: S311  which requests are sampled is no secret
        self._samples: queue.Queue[_Sample] = queue.Queue(_QUEUE_SIZE)
        self._closing = threading.Event()
        # In this order they are sent: who sees that a user was compared sees what was found for them, too.
        self._wanted = publisher.counter("nann_quality_items_wanted_total", "Items in the exact answers")
        self._found = publisher.counter(
            "nann_quality_items_found_total", "Items of the exact answers that were answered"
        )
        self._users = {
            result: publisher.counter("nann_quality_users_total", "Sampled users by result", result=result)
            for result in ("compared", "dropped", "failed")
        }
        self._thread = threading.Thread(target=self._run, name="quality", daemon=True)
        self._thread.start()

    def draw(self, users: int) -> npt.NDArray[np.intp]:
        """Draws which of a number of answered users to offer."""
        return np.array([user for user in range(users) if self._random.random() < self._share], np.intp)

    def offer(self, users: UserBatch, items: Int32Array, item_count: int, rows: ItemRows | None) -> None:
        """Queues answered users for comparison; never waits.

        Args:
            users: B users, their states in host memory.
            items: `int32[B, K]`, their answers, padded with -1.
            item_count: of the corpus that was searched.
            rows: of its items; None: the scorer has an item table.
        """
        for row, answered in enumerate(items):
            if self._samples.full():
                self._users["dropped"].add(1)
            else:
                # No other thread adds samples. A view would keep its whole batch in memory: an array of rows copies.
                self._samples.put_nowait(_Sample(users[np.array([row])], answered.copy(), item_count, rows))

    def close(self) -> None:
        """Ends the thread, within one scorer call."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        # At normal priority: a low-priority thread could lose the CPU while it holds the GIL, and searches would wait.
        while not self._closing.is_set():
            with contextlib.suppress(queue.Empty):
                self._compare(self._samples.get(timeout=0.1))

    def _compare(self, sample: _Sample) -> None:
        top_k = min(len(sample.items), sample.item_count)
        scorer = _PacedScorer(self._make_scorer(sample.rows), self._load, self._closing)
        try:
            exact = exact_search(scorer, sample.user, sample.item_count, top_k, chunk=_BLOCK_ITEMS)
        except _ClosedError:
            return
        except Exception:  # the thread goes on while the scorer fails, and counts it
            self._users["failed"].add(1)
            return
        wanted = exact.items[0][exact.items[0] != PADDING_ITEM]  # fewer than K where fewer items match
        self._found.add(int(np.isin(wanted, sample.items).sum()))
        self._wanted.add(len(wanted))
        self._users["compared"].add(1)


class _ClosedError(NannError):
    """The monitor was closed."""


class _PacedScorer:
    """Pauses after each call, so that calls take `load` of the time."""

    def __init__(self, scorer: Scorer, load: float, closing: threading.Event) -> None:
        self._scorer = scorer
        self._pause_ratio = 1 / load - 1
        self._closing = closing

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        start_s = time.monotonic()
        scores = self._scorer.score(user_states, candidates)
        if self._closing.wait((time.monotonic() - start_s) * self._pause_ratio):
            raise _ClosedError
        return scores
