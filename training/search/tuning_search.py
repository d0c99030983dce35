"""The cheapest search that reaches a wanted coverage, for one entry strategy: a coarse grid, then small steps.

Where no point of the grid reaches it, the best of them is widened until it does.

What is tried: `tuning_spaces`. Coverage and cost both rise with every ef and every number of rounds.
That prunes: a walk is broken off when it has cost more than the best found so far, and whatever is larger before the
ground layer than a setting that was too expensive before the first ground round is not tried. One walk tells all
numbers of ground rounds (`nann.training.search.ground_rounds`).
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
"""The coarse grid goes on up to so many times the best cost, so that the frontier is seen beyond it."""
_LIGHT_SLACK = 1.01
"""A light walk may be cheapened where the search then scores at most so many times as much."""


@dataclass(frozen=True)
class Trial:
    """One setting as measured: means over the users."""

    params: SearchParams
    coverage: float
    items_scored: float
    share_scored: float

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        params = {name: value for name, value in search_to_json(self.params).items() if name != "top_k"}
        return {"entry": self.params.entry, **params, "coverage": self.coverage, "share_scored": self.share_scored}


@dataclass(frozen=True)
class SearchTuning:
    """What a search for parameters found.

    Attributes:
        wanted: the coverage asked for.
        best: the cheapest setting that reaches it; None if none does.
        trials: everything that was measured.
        walks: how many walks that took.
    """

    wanted: float
    best: Trial | None
    trials: tuple[Trial, ...]
    walks: int

    @property
    def nearest(self) -> Trial | None:
        """The best setting, or else the one of the highest coverage; None if all were too expensive."""
        return self.best or _nearest(self.trials)

    @property
    def frontier(self) -> list[Trial]:
        """Trials that no other beats in both coverage and cost, cheapest first.

        The best stands in the place of those that beat it by a hair, with a costlier light walk.
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

    def thinned(self, step: float) -> list[Trial]:
        """Of the frontier the best, and what covers `step` more than the one before."""
        kept: list[Trial] = []
        for trial in self.frontier:
            if trial is self.best or not kept or trial.coverage >= kept[-1].coverage + step:
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
    """Looks for the cheapest search of one entry strategy that reaches a coverage; its cost is what the scorer scores.

    Args:
        index: to walk.
        scorer: gives the scores.
        users: to tune on. All walk together: a few hundred are enough.
        wanted: coverage@K to reach, as a fraction.
        entry: the entry strategy.
        max_share: settings that score a larger share of the corpus are not considered.
        after: an earlier tuning for a higher coverage, all else equal: its trials stand in for the grid, which has
            nothing cheaper to add.
        fine_passes: how often at most all small steps around the best setting are tried.
        progress: called with the settings before the ground layer that are done, and their total.
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
    """Several entry strategies tuned for the same coverage, as if they had been one; at least one."""
    best = min((one.best for one in tunings if one.best), key=lambda trial: trial.items_scored, default=None)
    trials = tuple(trial for one in tunings for trial in one.trials)
    return SearchTuning(tunings[0].wanted, best, trials, sum(one.walks for one in tunings))


def tune_every_entry(
    index: SearchIndex,
    scorer: Scorer,
    users: MeasuredUsers,
    wanted: float,
    *,
    max_share: float = 1.0,
) -> SearchTuning:
    """The cheapest search of any entry strategy: without light vectors the paper's; arguments as of `tune_search`.

    Seeds come first: what they cost bounds what is tried of the other, dearer as a rule.
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
        """The grid: one from its middle, whose cost bounds that of the others, then smallest settings first."""
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
        """Beyond the grid where nothing in it is good enough: its best setting with every ef doubled, and again."""
        nearest = _nearest(self.trials.values())
        params = None if nearest is None else self.space.wider(nearest.params)
        while self.best is None and params is not None and params not in self.walked:
            if self._walk(params) == 0:
                return
            params = self.space.wider(params)

    def resume(self, trials: Sequence[Trial]) -> None:
        """Takes over what was measured for another coverage."""
        self.trials = {trial.params: trial for trial in trials}
        enough = (trial for trial in trials if trial.coverage >= self.wanted)
        self.best = min(enough, key=lambda trial: trial.items_scored, default=None)

    def refine(self, passes: int) -> None:
        """One value at a time around the best, as long as that finds a cheaper setting."""
        for _ in range(passes):
            before = self.best
            assert before is not None
            for params in self.space.around(before.params):
                self._walk(params)
            if self.best is before:
                return

    def cheapen_light(self, best: Trial) -> None:
        """The cheapest light walk with which the best setting still reaches the coverage at hardly more evaluations."""
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
        found = search_by_ground_round(self.index, self.scorer, self.users.batch, params, most)
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
