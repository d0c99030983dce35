"""The scorer calls of a user's search, recorded and made again without a server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_params import SearchParams
from nann.signature import PADDING_ITEM

from .offline import OfflineUsers

Calls = list[tuple[Float32Array, Int32Array]]
"""User states and candidates of each call."""


@dataclass
class Recorder:
    """Passes calls on to `scorer` and keeps copies of their inputs."""

    scorer: Scorer
    calls: Calls = field(default_factory=list)

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        self.calls.append((user_states.copy(), candidates.copy()))
        return self.scorer.score(user_states, candidates)


def record_calls(users: OfflineUsers, params: SearchParams) -> list[Calls]:
    """The scorer calls of each user's search; one user at a time, as at concurrency 1."""
    recorded = []
    for row in range(len(users.batch)):
        recorder = Recorder(users.scorer)
        users.search(params, slice(row, row + 1), scorer=recorder)
        recorded.append(recorder.calls)
    return recorded


def scored(calls: Calls) -> int:
    """How many candidates these calls score."""
    return sum(int(np.count_nonzero(candidates != PADDING_ITEM)) for _, candidates in calls)


def plain_ms(scorer: Scorer, users: Sequence[Calls]) -> list[float]:
    """Time in ms to make each user's calls again, one after the other and without a search around them."""
    times = []
    for calls in users:
        start_ns = time.perf_counter_ns()
        for states, candidates in calls:
            scorer.score(states, candidates)
        times.append((time.perf_counter_ns() - start_ns) / 1e6)
    return times
