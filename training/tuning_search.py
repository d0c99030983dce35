"""The cheapest ef and rounds that reach a wanted coverage: a coarse grid, then small steps around its best point.

Coverage and cost both rise with every ef and every number of rounds. That prunes: a walk is broken off when it has cost
more than the best found so far, and whatever is larger in all upper layers than a setting that was too expensive before
the first ground round is not tried. One walk tells all numbers of ground rounds (`training.ground_rounds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from nann.graph import HnswGraph
from nann.metrics import coverage
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_params import SearchParams
from training.ground_rounds import search_by_ground_round

Progress = Callable[[int, int], None]

_ENTRY_EF = (0.3, 1.2)
_UPPER_EF = (0.1, 0.2, 0.4, 0.8, 1.6)
_GROUND_EF = (1.0, 1.5, 2.5, 4.0)
"""Coarse grid of ef, in multiples of top_k."""
_UPPER_ROUNDS = (1, 2, 3, 5)
_GROUND_ROUNDS = 8
_FINE_STEPS = (0.7, 0.85, 0.95, 1.1, 1.25)
_MOST_FINE_PASSES = 12
_FRONTIER_SLACK = 1.15
"""The coarse grid goes on up to so many times the best cost, so that the frontier is seen beyond it."""


@dataclass(frozen=True)
class Trial:
    """One setting as measured: means over the users."""

    params: SearchParams
    coverage: float
    items_scored: float
    share_scored: float

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        params = {"ef": list(self.params.ef), "rounds": list(self.params.rounds)}
        return {**params, "coverage": self.coverage, "share_scored": self.share_scored}


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
        return self.best or max(self.trials, key=lambda trial: (trial.coverage, -trial.items_scored), default=None)

    @property
    def frontier(self) -> list[Trial]:
        """Trials that no other beats in both coverage and cost, cheapest first."""
        kept: list[Trial] = []
        for trial in sorted(self.trials, key=lambda trial: (trial.items_scored, -trial.coverage)):
            if not kept or trial.coverage > kept[-1].coverage:
                kept.append(trial)
        return kept


def tune_search(
    graph: HnswGraph,
    scorer: Scorer,
    states: Float32Array,
    exact: Int32Array,
    wanted: float,
    *,
    max_share: float = 1.0,
    progress: Progress = lambda done, total: None,
) -> SearchTuning:
    """Looks for the cheapest ef and rounds that reach a coverage.

    Args:
        graph: the layers to walk.
        scorer: gives the scores.
        states: `float32[U, S]`, users to tune on. All walk together: a few hundred are enough.
        exact: `int32[U, K]`, their exact top K.
        wanted: coverage@K to reach, as a fraction.
        max_share: settings that score a larger share of the corpus are not considered.
        progress: called with the upper-layer settings done and their total.
    """
    tuner = _Tuner(graph, scorer, states, exact, wanted, max_share * graph.item_count)
    tuner.coarse(progress)
    if tuner.best is not None:
        tuner.refine()
    return SearchTuning(wanted, tuner.best, tuple(tuner.trials.values()), tuner.walks)


def grid(graph: HnswGraph, top_k: int) -> list[SearchParams]:
    """The coarse grid, each setting with the most ground rounds; smaller settings of the upper layers first."""
    return [_params(top_k, upper, ef) for upper in _upper_grid(graph, top_k) for ef in _ground_efs(graph, top_k)]


_Upper = tuple[tuple[int, ...], tuple[int, ...]]
"""ef and rounds of all layers but the ground."""


class _Tuner:
    def __init__(
        self,
        graph: HnswGraph,
        scorer: Scorer,
        states: Float32Array,
        exact: Int32Array,
        wanted: float,
        most_scored: float,
    ) -> None:
        self.graph, self.scorer, self.states, self.exact = graph, scorer, states, exact
        self.wanted, self.most_scored = wanted, most_scored
        self.top_k = exact.shape[1]
        self.trials: dict[SearchParams, Trial] = {}
        self.best: Trial | None = None
        self.walks = 0
        self._walked: set[SearchParams] = set()

    def coarse(self, progress: Progress) -> None:
        """The grid: one from its middle, whose cost bounds that of the others, then smallest settings first."""
        uppers = _upper_grid(self.graph, self.top_k)
        uppers.insert(0, uppers[len(uppers) // 2])
        hopeless: list[_Upper] = []
        for done, upper in enumerate(uppers):
            if not any(_at_least(upper, other) for other in hopeless):
                for ef in _ground_efs(self.graph, self.top_k):
                    rounds = self._walk(_params(self.top_k, upper, ef), _FRONTIER_SLACK)
                    if rounds == 0:
                        hopeless.append(upper)
                    if rounds <= 1:  # the first round is the same with any ef of the ground, the second costs more
                        break
            progress(done + 1, len(uppers))

    def refine(self) -> None:
        """One value at a time around the best, as long as that finds a cheaper setting."""
        for _ in range(_MOST_FINE_PASSES):
            before = self.best
            assert before is not None
            for params in self._around(before.params):
                self._walk(params)
            if self.best is before:
                return

    def _walk(self, params: SearchParams, slack: float = 1.0) -> int:
        """Measures every number of ground rounds of one setting; returns how many were affordable."""
        if params in self._walked:
            return params.rounds[-1]
        self._walked.add(params)
        self.walks += 1
        most = self.most_scored if self.best is None else min(self.most_scored, slack * self.best.items_scored)
        found = search_by_ground_round(self.graph, self.scorer, self.states, params, most)
        for place, (items, items_scored) in enumerate(zip(found.items, found.items_scored, strict=True)):
            setting = SearchParams(self.top_k, params.ef, (*params.rounds[:-1], place + 1))
            cost = float(items_scored.mean())
            trial = Trial(setting, coverage(items, self.exact), cost, cost / self.graph.item_count)
            self.trials[setting] = trial
            cheaper = self.best is None or trial.items_scored < self.best.items_scored
            if trial.coverage >= self.wanted and cheaper:
                self.best = trial
        return len(found.items)

    def _around(self, params: SearchParams) -> Iterable[SearchParams]:
        ground_rounds = (*params.rounds[:-1], min(params.rounds[-1] + 2, _GROUND_ROUNDS))
        bounds = self.graph.layer_sizes[self.graph.entry_layer :: -1]  # entry layer first
        for layer, (ef, size) in enumerate(zip(params.ef, bounds, strict=True)):
            least = self.top_k if layer == len(bounds) - 1 else 1
            for step in _FINE_STEPS:
                value = min(max(round(ef * step), least), size)
                yield SearchParams(self.top_k, _with(params.ef, layer, value), ground_rounds)
        for layer in range(1, len(bounds) - 1):
            for rounds in (params.rounds[layer] - 1, params.rounds[layer] + 1):
                if rounds >= 0:
                    yield SearchParams(self.top_k, params.ef, _with(ground_rounds, layer, rounds))


def _upper_grid(graph: HnswGraph, top_k: int) -> list[_Upper]:
    sizes = graph.layer_sizes[graph.entry_layer : 0 : -1]  # entry layer first, the ground left out
    if not sizes:
        return [((), ())]
    middle = len(sizes) - 1
    # With two layers or more between entry and ground the full product would be thousands.
    efs, rounds = (_UPPER_EF, _UPPER_ROUNDS) if middle <= 1 else (_UPPER_EF[1::2], _UPPER_ROUNDS[::2])
    each_ef = [_scaled(_ENTRY_EF, top_k, sizes[0]), *(_scaled(efs, top_k, size) for size in sizes[1:])]
    each_rounds = [(1,), *(rounds for _ in sizes[1:])]  # all of the entry layer is scored, whatever its rounds
    uppers = list(product(product(*each_ef), product(*each_rounds)))
    return sorted(uppers, key=lambda upper: (np.prod(upper[0]) * np.prod(upper[1]), upper))


def _ground_efs(graph: HnswGraph, top_k: int) -> list[int]:
    return _scaled(_GROUND_EF, top_k, max(graph.item_count, top_k))


def _scaled(multiples: Sequence[float], top_k: int, most: int) -> list[int]:
    return sorted({min(max(round(multiple * top_k), 1), most) for multiple in multiples})


def _params(top_k: int, upper: _Upper, ground_ef: int) -> SearchParams:
    return SearchParams(top_k, (*upper[0], ground_ef), (*upper[1], _GROUND_ROUNDS))


def _at_least(one: _Upper, other: _Upper) -> bool:
    return all(a >= b for a, b in zip(sum(one, ()), sum(other, ()), strict=True))


def _with(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])
