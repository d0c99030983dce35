"""Finds the cheapest search that reaches an aim, for one entry strategy: a coarse grid, then small steps.

The aim is a coverage or a recall-Delta. If no setting of the grid (`tuning_spaces`) reaches it, the best one is widened
until it does. A quick tuning tries a short ladder of settings only.

Coverage and cost rise with every ef and every number of rounds, so much need not be tried. A walk stops once it costs
more than the best setting so far. A setting that is too expensive before its first ground round rules out all settings
that are at least as large above the ground layer. One walk measures all numbers of ground rounds (`ground_rounds`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic

import numpy as np

from nann.request_conditions import items_matching
from nann.scorer import Scorer
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.search_requests import SERVED_BOUNDS
from nann.signature import ENTRY_LAYERS, ENTRY_SEEDS

from .ground_rounds import search_by_ground_round
from .measured_users import MeasuredUsers
from .tuning_spaces import LayersSpace, SeedsSpace, Space, Upper
from .tuning_trials import Aim, SearchTuning, Trial, merged, nearest_trial

Progress = Callable[[int, int], None]

_MOST_FINE_PASSES = 12
_FRONTIER_SLACK = 1.15
"""The coarse grid measures settings up to this multiple of the best cost, so that the frontier extends past it."""
_LIGHT_SLACK = 1.01
"""A cheaper light walk is accepted if the search then costs at most this multiple of the best cost."""


def tune_search(
    index: SearchIndex,
    scorer: Scorer,
    users: MeasuredUsers,
    wanted: Aim,
    *,
    entry: str = ENTRY_LAYERS,
    max_share: float = 1.0,
    after: SearchTuning | None = None,
    fine_passes: int = _MOST_FINE_PASSES,
    quick: bool = False,
    max_ef: int = SERVED_BOUNDS.max_ef,
    until: float = np.inf,
    progress: Progress = lambda done, total: None,
) -> SearchTuning:
    """Finds the cheapest search of one entry strategy that reaches an aim. The cost is the number of items scored.

    Args:
        index: the index to search.
        scorer: scores the candidates.
        users: to tune on, searched for as one batch; a few hundred are enough.
        wanted: what to reach.
        entry: the entry strategy.
        max_share: settings that score a larger share of the corpus are left out.
        after: a tuning for a higher coverage with otherwise the same arguments. Its trials replace the grid, which
            holds nothing cheaper.
        fine_passes: largest number of passes of small steps around the best setting.
        quick: try `Space.ladder` only.
        max_ef: the largest ef, and number of seeds, that the server allows; at least the users' top_k.
        until: start no walk after this time of `time.monotonic`.
        progress: called with the number of steps of the ladder or of `Space.uppers` that are done, and their total.
    """
    space: Space = (SeedsSpace if entry == ENTRY_SEEDS else LayersSpace)(index.graph, users.top_k, max_ef)
    tuner = _Tuner(index, scorer, users, wanted, max_share * index.item_count, space, until)
    with suppress(_TimeIsUpError):
        tuner.run(after, fine_passes, quick, progress)
    return SearchTuning(wanted, tuner.best, tuple(tuner.trials.values()), len(tuner.walked))


def tune_all(users: MeasuredUsers, wanted: Aim, item_count: int, max_share: float) -> SearchTuning:
    """The search that scores all items that may be shown: its list is the exact one, so that nothing is walked."""
    params = SearchParams(users.top_k, (users.top_k,), (0,), every_item=True)
    matching = items_matching(users.batch.blocked, len(users), item_count)
    trial = Trial.of(users, params, users.exact, matching, item_count)
    return (
        SearchTuning(wanted, trial, (trial,), 0)
        if trial.share_scored <= max_share
        else SearchTuning(wanted, None, (), 0)
    )


def tune_every_entry(
    index: SearchIndex, scorer: Scorer, users: MeasuredUsers, wanted: Aim, *, max_share: float
) -> SearchTuning:
    """Finds the cheapest search of any entry strategy that the index can serve; for the arguments see `tune_search`.

    Entry by seeds is tuned first. It is usually the cheapest, and its cost bounds what is tried of the other.
    """
    tunings: list[SearchTuning] = []
    for entry in (ENTRY_LAYERS,) if index.light_vectors is None else (ENTRY_SEEDS, ENTRY_LAYERS):
        best = merged(tunings).best if tunings else None
        most = max_share if best is None else best.share_scored
        tunings.append(tune_search(index, scorer, users, wanted, entry=entry, max_share=most))
    return merged(tunings)


@dataclass
class _Tuner:
    index: SearchIndex
    scorer: Scorer
    users: MeasuredUsers
    wanted: Aim
    most_scored: float
    space: Space
    until: float
    trials: dict[SearchParams, Trial] = field(default_factory=dict)
    best: Trial | None = None
    walked: set[SearchParams] = field(default_factory=set)

    def run(self, after: SearchTuning | None, fine_passes: int, quick: bool, progress: Progress) -> None:
        """Tries settings; see `tune_search`. `best` and `trials` hold what was found, also if the time is up."""
        if quick:
            self.climb(progress)
            return
        if after is None:
            self.coarse(progress)
            self.widen()
        else:
            self.resume(after.trials)
        if self.best is not None:
            self.refine(fine_passes)
            self.cheapen_light(self.best)

    def climb(self, progress: Progress) -> None:
        """Tries the ladder, whose later steps stop as soon as they cost more than the best."""
        ladder = self.space.ladder()
        for done, params in enumerate(ladder):
            self._walk(params)
            progress(done + 1, len(ladder))

    def coarse(self, progress: Progress) -> None:
        """Tries the grid: first one setting from its middle, whose cost bounds the others, then the smallest first."""
        uppers, efs = self.space.uppers(), self.space.ground_efs()
        uppers.insert(0, uppers[len(uppers) // 2])
        for params in self.space.without_rounds():
            self._walk(params, _FRONTIER_SLACK)
        hopeless: list[Upper] = []
        for done, upper in enumerate(uppers):
            if not any(_at_least(upper, other) for other in hopeless):
                for ef in efs:
                    rounds = self._walk(self.space.params(upper, ef), _FRONTIER_SLACK)
                    if rounds == 0 and ef == efs[0]:
                        hopeless.append(upper)
                    # A larger ef costs more from the second round on, and in the first as much or more.
                    if rounds == 0 or (rounds == 1 and not self.space.first_round_depends_on_ef):
                        break
            progress(done + 1, len(uppers))

    def widen(self) -> None:
        """Doubles every ef of the nearest setting until the aim is reached, unless the grid reached it."""
        nearest = nearest_trial(self.trials.values(), self.wanted)
        params = None if nearest is None else self.space.wider(nearest.params)
        while self.best is None and params is not None and params not in self.walked:
            if self._walk(params) == 0:
                return
            params = self.space.wider(params)

    def resume(self, trials: Sequence[Trial]) -> None:
        """Takes over the trials for another coverage."""
        self.trials = {trial.params: trial for trial in trials}
        enough = (trial for trial in trials if not self.wanted.shortfall(trial))
        self.best = min(enough, key=lambda trial: trial.items_scored, default=None)

    def refine(self, passes: int) -> None:
        """Changes one value of the best setting at a time, as long as that finds a cheaper one."""
        for _ in range(passes):
            before = self.best
            assert before is not None
            for params in self.space.around(before.params):
                self._walk(params)
            if self.best is before:
                return

    def cheapen_light(self, best: Trial) -> None:
        """Takes the cheapest light walk that keeps the aim at hardly more scorer evaluations."""
        for params in self.space.with_less_light(best.params):
            self._walk(params, _LIGHT_SLACK)
            trial = self.trials.get(params)
            if trial is not None and not self.wanted.shortfall(trial):
                self.best = trial
                return

    def _walk(self, params: SearchParams, slack: float = 1.0) -> int:
        """Measures every number of ground rounds of one setting; returns how many were affordable."""
        if params in self.walked:
            return params.rounds[-1]
        if monotonic() > self.until:
            raise _TimeIsUpError
        self.walked.add(params)
        most = self.most_scored if self.best is None else min(self.most_scored, slack * self.best.items_scored)
        found = search_by_ground_round(self.index, self.scorer, self.users, params, most)
        for place, (items, items_scored) in enumerate(zip(found.items, found.items_scored, strict=True)):
            setting = replace(params, rounds=(*params.rounds[:-1], min(place + 1, params.rounds[-1])))
            trial = Trial.of(self.users, setting, items, items_scored, self.index.item_count)
            self.trials[setting] = trial
            cheaper = self.best is None or trial.items_scored < self.best.items_scored
            if cheaper and not self.wanted.shortfall(trial):
                self.best = trial
        return len(found.items)


class _TimeIsUpError(Exception):
    """Ends a tuning from inside."""


def _at_least(one: Upper, other: Upper) -> bool:
    return all(a >= b for a, b in zip(sum(one, ()), sum(other, ()), strict=True))
