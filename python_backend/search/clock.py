"""Measures the stages of a search; for a traced search it also records when each stage and round ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nann.beam_search import Observer, RoundTrace
from nann.stage_clock import StageClock


@dataclass
class SearchClock(StageClock):
    """A `StageClock` for one batch.

    Attributes:
        start_ns: start of the search, by `time.perf_counter_ns`.
    """

    start_ns: int = field(default_factory=time.perf_counter_ns)

    @property
    def trace(self) -> Any:
        """Triton's trace to pass on to the scorer; None: the search is not traced."""
        return None

    def observer(self, searches: Sequence[Any]) -> Observer | None:
        """What to call after every round of these searches, which run in lockstep; None: nothing."""
        del searches
        return None


class StageTime(NamedTuple):
    """One call of one stage, by `time.perf_counter_ns`."""

    stage: str
    start_ns: int
    end_ns: int


class RoundTime(NamedTuple):
    """The end of one round of these searches, by `time.perf_counter_ns`, and its trace."""

    searches: Sequence[Any]
    end_ns: int
    trace: RoundTrace


@dataclass
class Timeline(SearchClock):
    """A `SearchClock` that records every stage and round.

    Attributes:
        traced: the searches of traced requests, each with Triton's trace and its OpenTelemetry context.
        stages: ordered by their ends.
        rounds: from the first to the last.
    """

    traced: Sequence[tuple[Any, Any, Any]] = ()
    stages: list[StageTime] = field(default_factory=list)
    rounds: list[RoundTime] = field(default_factory=list)

    @property
    def trace(self) -> Any:
        """The trace of the first traced request: a call for many requests can belong to only one trace."""
        return self.traced[0][1]

    def add(self, stage: str, start_ns: int, end_ns: int) -> None:
        """See `StageClock`."""
        super().add(stage, start_ns, end_ns)
        self.stages.append(StageTime(stage, start_ns, end_ns))

    def observer(self, searches: Sequence[Any]) -> Observer:
        """See `SearchClock`."""
        return lambda trace: self.rounds.append(RoundTime(searches, time.perf_counter_ns(), trace))
