"""What a tuning finds: settings with what they reach and cost, and the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nann.manifest import search_to_json
from nann.metrics import IntArray, coverage
from nann.scorer import Int32Array
from nann.search_params import SearchParams
from nann.search_start import EXACT_WORTH

from .measured_users import MeasuredUsers

_FRONTIER_STEP = 0.005
"""Least difference in coverage between two settings of a thinned frontier."""
AS_FAST = 1.05
"""Times that differ by no more than this are equal: a noisy machine measures no better."""


@dataclass(frozen=True)
class Trial:
    """One setting and its measured means over the users.

    `recall_delta` is None if recall-all is 0; for `recall_error` see `MeasuredUsers`. `ms` is the time for a user, None
    if it was not measured.
    """

    params: SearchParams
    coverage: float
    recall_delta: float | None
    recall_error: float
    items_scored: float
    share_scored: float
    ms: float | None = None

    def summary(self) -> dict[str, Any]:
        """The trial without its top_k, for JSON."""
        params = {name: value for name, value in search_to_json(self.params).items() if name != "top_k"}
        return {"entry": self.params.entry, **params, **self.measures, **({} if self.ms is None else {"ms": self.ms})}

    @classmethod
    def of(
        cls, users: MeasuredUsers, params: SearchParams, items: Int32Array, items_scored: IntArray, item_count: int
    ) -> Trial:
        """The trial of a search that found `items` (`int32[U, K]`) with `items_scored` (`int[U]`) evaluations."""
        covered, scored = coverage(items, users.exact), float(items_scored.mean())
        lost = users.recall_delta(items), users.recall_error(covered)
        return cls(params, covered, *lost, scored, scored / item_count)

    @property
    def cost(self) -> float:
        """`items_scored`, as many as a search from round to round scores in the same time."""
        return self.items_scored / EXACT_WORTH if self.params.every_item else self.items_scored

    @property
    def reached(self) -> str:
        """What it reaches, in words."""
        return f"coverage {self.coverage:.2%}, recall-Delta {self.lost}"

    @property
    def lost(self) -> str:
        """recall-Delta and its standard error, in words."""
        return "-" if self.recall_delta is None else f"{self.recall_delta:.2%} ±{self.recall_error:.2%}"

    @property
    def measures(self) -> dict[str, float | None]:
        """What it reaches and costs, as fractions."""
        recall = {"recall_delta": self.recall_delta, "recall_error": self.recall_error}
        return {"coverage": self.coverage, **recall, "share_scored": self.share_scored}


class Aim(NamedTuple):
    """What a search must reach, as fractions: at least this coverage@K, at most this recall-Delta.

    A recall-Delta counts with its standard error, and not below 0. Otherwise the cheapest of many trials would be one
    that kept its recall by chance.
    """

    coverage: float = 0.0
    recall_delta: float = np.inf

    def shortfall(self, trial: Trial) -> float:
        """How much a trial lacks; 0 if it reaches the aim."""
        delta = max(trial.recall_delta or 0.0, 0.0) + trial.recall_error
        return max(self.coverage - trial.coverage, 0.0) + max(delta - self.recall_delta, 0.0)

    def __str__(self) -> str:
        if self.recall_delta < np.inf:
            return f"recall-Delta {self.recall_delta:.2%} or less"
        return f"coverage {self.coverage:.2%}"


@dataclass(frozen=True)
class SearchTuning:
    """The result of tuning.

    Attributes:
        wanted: what to reach.
        best: the cheapest setting that reaches it, or, once they are timed, the fastest; None if none does.
        trials: all settings that were measured.
        walks: how many walks that took.
    """

    wanted: Aim
    best: Trial | None
    trials: tuple[Trial, ...]
    walks: int

    @property
    def nearest(self) -> Trial | None:
        """The best setting, else the one that lacks least; None if all were too expensive."""
        return self.best or nearest_trial(self.trials, self.wanted)

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


def merged(tunings: Sequence[SearchTuning]) -> SearchTuning:
    """One result from tunings of several entry strategies for the same aim; needs at least one."""
    best = cheapest([one.best for one in tunings if one.best])
    trials = tuple(trial for one in tunings for trial in one.trials)
    return SearchTuning(tunings[0].wanted, best, trials, sum(one.walks for one in tunings))


def cheapest(trials: Sequence[Trial]) -> Trial | None:
    """Of those that are as fast as the fastest, the one with the fewest evaluations; without times, by `Trial.cost`."""
    times = [trial.ms for trial in trials if trial.ms is not None]
    if len(times) < len(trials):
        return min(trials, key=lambda trial: trial.cost)
    as_fast = [trial for trial, ms in zip(trials, times, strict=True) if ms <= AS_FAST * min(times)]
    return min(as_fast, key=lambda trial: trial.items_scored, default=None)


def nearest_trial(trials: Iterable[Trial], wanted: Aim) -> Trial | None:
    """The one that lacks least, and of several the cheapest; None of none."""
    return min(trials, key=lambda trial: (wanted.shortfall(trial), trial.items_scored), default=None)
