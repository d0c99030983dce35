"""Runs along with a search: where its time goes, and for a traced one also when each round and stage was."""

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
        start_ns: by `time.perf_counter_ns`.
    """

    start_ns: int = field(default_factory=time.perf_counter_ns)

    @property
    def trace(self) -> Any:
        """Triton's trace to hand on to the scorer; None: there is none."""
        return None

    def observer(self, searches: Sequence[Any]) -> Observer | None:
        """What to call after every round of these searches, which walk in lockstep; None: nothing."""
        del searches
        return None


class StageTime(NamedTuple):
    """One call of one stage, by `time.perf_counter_ns`."""

    stage: str
    start_ns: int
    end_ns: int


class RoundTime(NamedTuple):
    """The end of one round of these searches, by `time.perf_counter_ns`, and what it led to."""

    searches: Sequence[Any]
    end_ns: int
    trace: RoundTrace


@dataclass
class Timeline(SearchClock):
    """A `SearchClock` that keeps everything.

    Attributes:
        traced: the searches of traced requests, with Triton's trace and its context for OpenTelemetry.
        stages: in order of their ends.
        rounds: in their order.
    """

    traced: Sequence[tuple[Any, Any, Any]] = ()
    stages: list[StageTime] = field(default_factory=list)
    rounds: list[RoundTime] = field(default_factory=list)

    @property
    def trace(self) -> Any:
        """The first request's: a call for many can belong to one trace only."""
        return self.traced[0][1]

    def add(self, stage: str, start_ns: int, end_ns: int) -> None:
        """See `StageClock`."""
        super().add(stage, start_ns, end_ns)
        self.stages.append(StageTime(stage, start_ns, end_ns))

    def observer(self, searches: Sequence[Any]) -> Observer:
        """See `SearchClock`."""
        return lambda trace: self.rounds.append(RoundTime(searches, time.perf_counter_ns(), trace))
