"""Finds the cheapest search that reaches a coverage, for one entry strategy: a coarse grid, then small steps.

If no setting of the grid (`tuning_spaces`) reaches the coverage, the best one is widened until it does.

Coverage and cost rise with every ef and every number of rounds, so much need not be tried. A walk stops once it costs
more than the best setting so far. A setting that is too expensive before its first ground round rules out all settings
that are at least as large above the ground layer. One walk measures all numbers of ground rounds (`ground_rounds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nann.bundle import search_to_json
from nann.metrics import coverage
from nann.scorer import Scorer
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.signature import ENTRY_LAYERS, ENTRY_SEEDS

from .ground_rounds import search_by_ground_round
from .measured_users import MeasuredUsers
from .tuning_spaces import LayersSpace, SeedsSpace, Space, Upper

Progress = Callable[[int, int], None]

_MOST_FINE_PASSES = 12
_FRONTIER_SLACK = 1.15
"""The coarse grid measures settings up to this multiple of the best cost, so that the frontier extends past it."""
_LIGHT_SLACK = 1.01
"""A cheaper light walk is accepted if the search then costs at most this multiple of the best cost."""
_FRONTIER_STEP = 0.005
"""Least difference in coverage between two settings of a thinned frontier."""


@dataclass(frozen=True)
class Trial:
    """One setting and its measured means over the users."""

    params: SearchParams
    coverage: float
    items_scored: float
    share_scored: float

    def summary(self) -> dict[str, Any]:
        """The trial without its top_k, for JSON."""
        params = {name: value for name, value in search_to_json(self.params).items() if name != "top_k"}
        return {"entry": self.params.entry, **params, "coverage": self.coverage, "share_scored": self.share_scored}


@dataclass(frozen=True)
class SearchTuning:
    """The result of tuning.

    Attributes:
        wanted: the coverage to reach.
        best: the cheapest setting that reaches it; None if none does.
        trials: all settings that were measured.
        walks: how many walks that took.
    """

    wanted: float
    best: Trial | None
    trials: tuple[Trial, ...]
    walks: int

    @property
    def nearest(self) -> Trial | None:
        """The best setting, else the one with the highest coverage; None if all were too expensive."""
        return self.best or _nearest(self.trials)

    @property
    def frontier(self) -> list[Trial]:
        """Trials that no other beats in both coverage and cost, cheapest first.

        `best` replaces those that beat it by a hair, since their light walks cost more.
        """
        kept: list[Trial] = []
        for trial in sorted(self.trials, key=lambda trial: (trial.items_scored, -trial.coverage)):
            if not kept or trial.coverage > kept[-1].coverage:
                kept.append(trial)
        best = self.best
        if best is None:
            return kept
        worse = (one for one in kept if one.items_scored > best.items_scored or one.coverage < best.coverage)
        return sorted([*worse, best], key=lambda trial: trial.items_scored)

    @property
    def thinned(self) -> list[Trial]:
        """The frontier without settings that cover hardly more than the one before; `best` always stays."""
        kept: list[Trial] = []
        for trial in self.frontier:
            if trial is self.best or not kept or trial.coverage >= kept[-1].coverage + _FRONTIER_STEP:
                kept.append(trial)
        return kept


def tune_search(
    index: SearchIndex,
    scorer: Scorer,
    users: MeasuredUsers,
    wanted: float,
    *,
    entry: str = ENTRY_LAYERS,
    max_share: float = 1.0,
    after: SearchTuning | None = None,
    fine_passes: int = _MOST_FINE_PASSES,
    progress: Progress = lambda done, total: None,
) -> SearchTuning:
    """Finds the cheapest search of one entry strategy that reaches a coverage. The cost is the number of items scored.

    Args:
        index: the index to search.
        scorer: scores the candidates.
        users: to tune on, searched for as one batch; a few hundred are enough.
        wanted: coverage@K to reach, as a fraction.
        entry: the entry strategy.
        max_share: settings that score a larger share of the corpus are left out.
        after: a tuning for a higher coverage with otherwise the same arguments. Its trials replace the grid, which
            holds nothing cheaper.
        fine_passes: largest number of passes of small steps around the best setting.
        progress: called with the number of `Space.uppers` that are done, and their total.
    """
    space: Space = (SeedsSpace if entry == ENTRY_SEEDS else LayersSpace)(index.graph, users.top_k)
    tuner = _Tuner(index, scorer, users, wanted, max_share * index.item_count, space)
    if after is None:
        tuner.coarse(progress)
        tuner.widen()
    else:
        tuner.resume(after.trials)
    if tuner.best is not None:
        tuner.refine(fine_passes)
        tuner.cheapen_light(tuner.best)
    return SearchTuning(wanted, tuner.best, tuple(tuner.trials.values()), len(tuner.walked))


def merged(tunings: Sequence[SearchTuning]) -> SearchTuning:
    """One result from tunings of several entry strategies for the same coverage; needs at least one."""
    best = min((one.best for one in tunings if one.best), key=lambda trial: trial.items_scored, default=None)
    trials = tuple(trial for one in tunings for trial in one.trials)
    return SearchTuning(tunings[0].wanted, best, trials, sum(one.walks for one in tunings))


def tune_every_entry(
    index: SearchIndex, scorer: Scorer, users: MeasuredUsers, wanted: float, *, max_share: float
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
    wanted: float
    most_scored: float
    space: Space
    trials: dict[SearchParams, Trial] = field(default_factory=dict)
    best: Trial | None = None
    walked: set[SearchParams] = field(default_factory=set)

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
        """Doubles every ef of the nearest setting until the coverage is reached, unless the grid reached it."""
        nearest = _nearest(self.trials.values())
        params = None if nearest is None else self.space.wider(nearest.params)
        while self.best is None and params is not None and params not in self.walked:
            if self._walk(params) == 0:
                return
            params = self.space.wider(params)

    def resume(self, trials: Sequence[Trial]) -> None:
        """Takes over the trials for another coverage."""
        self.trials = {trial.params: trial for trial in trials}
        enough = (trial for trial in trials if trial.coverage >= self.wanted)
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
        """Takes the cheapest light walk that keeps the coverage at hardly more scorer evaluations."""
        for params in self.space.with_less_light(best.params):
            self._walk(params, _LIGHT_SLACK)
            trial = self.trials.get(params)
            if trial is not None and trial.coverage >= self.wanted:
                self.best = trial
                return

    def _walk(self, params: SearchParams, slack: float = 1.0) -> int:
        """Measures every number of ground rounds of one setting; returns how many were affordable."""
        if params in self.walked:
            return params.rounds[-1]
        self.walked.add(params)
        most = self.most_scored if self.best is None else min(self.most_scored, slack * self.best.items_scored)
        found = search_by_ground_round(self.index, self.scorer, self.users, params, most)
        for place, (items, items_scored) in enumerate(zip(found.items, found.items_scored, strict=True)):
            setting = replace(params, rounds=(*params.rounds[:-1], min(place + 1, params.rounds[-1])))
            cost = float(items_scored.mean())
            trial = Trial(setting, coverage(items, self.users.exact), cost, cost / self.index.item_count)
            self.trials[setting] = trial
            cheaper = self.best is None or trial.items_scored < self.best.items_scored
            if trial.coverage >= self.wanted and cheaper:
                self.best = trial
        return len(found.items)


def _nearest(trials: Iterable[Trial]) -> Trial | None:
    return max(trials, key=lambda trial: (trial.coverage, -trial.items_scored), default=None)


def _at_least(one: Upper, other: Upper) -> bool:
    return all(a >= b for a, b in zip(sum(one, ()), sum(other, ()), strict=True))
