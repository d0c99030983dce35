"""Compares searches that reach an aim by their time: one user at a time, with the engine that will serve.

The number of evaluations leaves out what a search pays for its light walk, its rounds and its walk over the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter_ns

from nann.beam_search import beam_search
from nann.scorer import Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams

from ..reports.alternate import alternate
from .tuning_trials import SearchTuning, Trial, cheapest

TIMED_USERS = 32
WORTH_TIMING = 1.25
"""A search with up to so many times the evaluations of the cheapest may still be faster."""
_EACH_ENTRY = 3
_BLOCKS = 5


@dataclass(frozen=True)
class SearchTimer:
    """Times searches.

    Attributes:
        scorer: as it will serve, with as many threads.
        engine: its name, for the record.
        clock: tells ns.
    """

    scorer: Scorer
    engine: str
    clock: Callable[[], int] = perf_counter_ns

    def ms_per_user(
        self, index: SearchIndex, users: UserBatch, searches: Sequence[SearchParams]
    ) -> dict[SearchParams, float]:
        """The time that each search takes for one user: the median of a few blocks of users, which take turns."""
        each = [users[row : row + 1] for row in range(min(len(users), TIMED_USERS))]

        def block(params: SearchParams) -> None:
            for one in each:
                beam_search(index, self.scorer, one, params)

        times = alternate({params: partial(block, params) for params in searches}, _BLOCKS, clock=self.clock)
        return {params: ms / len(each) for params, ms in times.items()}


def timed(
    by_entry: Mapping[str, SearchTuning], index: SearchIndex, users: UserBatch, timer: SearchTimer
) -> tuple[dict[str, SearchTuning], list[Trial]]:
    """The tunings with the fastest of their finalists as their best; and all finalists, fastest first."""
    ms = timer.ms_per_user(index, users, [trial.params for tuning in by_entry.values() for trial in finalists(tuning)])
    found = {}
    for entry, tuning in by_entry.items():
        trials = tuple(replace(trial, ms=ms.get(trial.params)) for trial in tuning.trials)
        best = cheapest([trial for trial in trials if trial.ms is not None])
        found[entry] = replace(tuning, trials=trials, best=best)
    measured = [trial for tuning in found.values() for trial in tuning.trials if trial.ms is not None]
    return found, sorted(measured, key=lambda trial: ms[trial.params])


def finalists(tuning: SearchTuning) -> list[Trial]:
    """The best of one entry strategy, and the cheapest with more or fewer rounds, if they may be faster."""
    best = tuning.best
    if best is None:
        return []
    by_rounds = {best.params.rounds[-1]: best}
    for trial in sorted(tuning.trials, key=lambda trial: trial.items_scored):
        if trial.items_scored <= WORTH_TIMING * best.items_scored and not tuning.wanted.shortfall(trial):
            by_rounds.setdefault(trial.params.rounds[-1], trial)
    return list(by_rounds.values())[:_EACH_ENTRY]
