"""Wall time of a search by stage, measured around its kernels and its scorer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from nann.kernels import Implementation, Kernels
from nann.scorer import Float32Array, Int32Array, Scorer

STAGES = ("light_walk", "mark", "expand", "score", "select")
"""The stages of a search, in the order of a round; the rest of its time is spent in Python."""
_STAGE_OF = {
    "light_walk": "light_walk",
    "light_scan": "light_walk",
    "mark": "mark",
    "count": "mark",
    "expand": "expand",
    "expand_through": "expand",
    "merge_top": "select",
}


@dataclass
class StageClock:
    """Nanoseconds by stage of all searches that run with `kernels(...)` and `scorer(...)` of this clock.

    It costs two clock readings per call. Not thread-safe.

    Attributes:
        elapsed_ns: by name of the stage, one of `STAGES`.
        scorer_calls: how many.
    """

    elapsed_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    scorer_calls: int = 0

    def kernels(self, kernels: Kernels) -> Kernels:
        """The same kernels, timed."""
        return Kernels(kernels.name, _TimedImplementation(kernels.implementation, self))

    def scorer(self, scorer: Scorer) -> Scorer:
        """The same scorer, timed and counted."""
        return _TimedScorer(scorer, self)

    def add(self, stage: str, start_ns: int, end_ns: int) -> None:
        """Adds the time of one call, from two readings of `time.perf_counter_ns`."""
        self.elapsed_ns[stage] += end_ns - start_ns


class _TimedImplementation:
    """Passes every call on to `implementation`."""

    def __init__(self, implementation: Implementation, clock: StageClock) -> None:
        self._implementation = implementation
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        function, stage, clock = getattr(self._implementation, name), _STAGE_OF[name], self._clock

        def timed(*args: Any) -> Any:
            start = time.perf_counter_ns()
            try:
                return function(*args)
            finally:
                clock.add(stage, start, time.perf_counter_ns())

        return timed


class _TimedScorer:
    """Passes every call on to `scorer`."""

    def __init__(self, scorer: Scorer, clock: StageClock) -> None:
        self._scorer = scorer
        self._clock = clock

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        start = time.perf_counter_ns()
        try:
            return self._scorer.score(user_states, candidates)
        finally:
            self._clock.add("score", start, time.perf_counter_ns())
            self._clock.scorer_calls += 1
