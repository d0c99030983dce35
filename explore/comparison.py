"""What scoring every item would have given a user, and what today's cascade would have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nann.kernels import BoolArray, Float32Array, Int32Array
from nann.light_walk import light_users
from nann.scorer import Scorer
from nann.search_input import UserBatch


@dataclass(frozen=True, eq=False)
class EveryScore:
    """One user's scores of all N items.

    Attributes:
        deep: `float32[N]`, by the scorer.
        light: `float32[N]`, by the light score, an inner product of two vectors; None: the bundle has none.
    """

    deep: Float32Array
    light: Float32Array | None

    @classmethod
    def of(cls, scorer: Scorer, user: UserBatch, item_count: int, light_vectors: Float32Array | None) -> EveryScore:
        """Scores every item for the user, a batch of one."""
        deep = scorer.score(user.states, np.arange(item_count, dtype=np.int32)[None])[0]
        light = None
        if light_vectors is not None:
            light = light_vectors @ light_users(user.states, light_vectors.shape[1])[0]
        return cls(deep, light)


@dataclass(frozen=True, eq=False)
class RankedList:
    """Items in order, and the place of each item in it.

    Attributes:
        items: `int32[n]`, best first.
        item_count: N.
    """

    items: Int32Array
    item_count: int

    @cached_property
    def _place(self) -> npt.NDArray[np.int32]:
        place = np.zeros(self.item_count, np.int32)
        place[self.items] = np.arange(1, len(self.items) + 1, dtype=np.int32)
        return place

    def rank(self, item: int) -> int | None:
        """The item's place, from 1; None: it is not in the list."""
        return int(self._place[item]) or None

    def coverage(self, items: Int32Array, top_k: int) -> float | None:
        """The share of the first `top_k` that is in `items`; None: the list is empty."""
        best = self.items[:top_k]
        return float(np.isin(best, items).mean()) if len(best) else None


def exhaustive(every: EveryScore, shown: BoolArray) -> RankedList:
    """All items that may be shown (`bool[N]`) by the scorer's score; equal scores by index, as in every search."""
    return _ordered(every.deep, np.flatnonzero(shown).astype(np.int32))


def cascade(every: EveryScore, shown: BoolArray, evaluations: int) -> RankedList | None:
    """Two stages as they are common: the best by the light score, so many as `evaluations`, then the scorer's order.

    It costs as many evaluations of the scorer as the walk that it is compared with. None: there is no light score.
    """
    if every.light is None:
        return None
    candidates = _ordered(every.light, np.flatnonzero(shown).astype(np.int32)).items[:evaluations]
    return _ordered(every.deep, np.sort(candidates))


def _ordered(scores: Float32Array, items: Int32Array) -> RankedList:
    """These items, ascending, from the best score of `float32[N]` to the worst."""
    return RankedList(items[np.argsort(-scores[items], kind="stable")], len(scores))
