"""Lists that only count: the most popular items, and the user's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.scorer import Int32Array
from nann.signature import PADDING_ITEM

from ..data.prepared import PreparedData


@dataclass(frozen=True)
class Popular:
    """The items that occur most often in training, the same for every user.

    Attributes:
        order: `int32[N]`, all items, the most frequent first; equal counts by smaller item.
    """

    order: Int32Array

    @classmethod
    def fit(cls, data: PreparedData) -> Popular:
        """Orders the items of a data set."""
        return cls.of(data.train_counts)

    @classmethod
    def of(cls, train_counts: npt.NDArray[np.int64]) -> Popular:
        """Orders the items by their counts in training, `int64[N]`."""
        return cls(np.argsort(-train_counts, kind="stable").astype(np.int32))

    @property
    def positions(self) -> Int32Array:
        """The place of each item in `order`, `int32[N]`."""
        positions = np.empty_like(self.order)
        positions[self.order] = np.arange(len(self.order), dtype=np.int32)
        return positions

    def rank(self, behaviors: Int32Array, top_k: int) -> Int32Array:
        """See `baseline.Baseline`."""
        return np.tile(self.order[:top_k], (len(behaviors), 1))


@dataclass(frozen=True)
class OwnItems:
    """The user's own most frequent items, equal counts by popularity; popular items fill the list up."""

    popular: Popular

    @classmethod
    def fit(cls, data: PreparedData) -> OwnItems:
        """Orders the items of a data set."""
        return cls(Popular.fit(data))

    def rank(self, behaviors: Int32Array, top_k: int) -> Int32Array:
        """See `baseline.Baseline`."""
        order, positions = self.popular.order, self.popular.positions
        out = np.empty((len(behaviors), min(top_k, len(order))), np.int32)
        for user, row in enumerate(behaviors):
            own, times = np.unique(row[row != PADDING_ITEM], return_counts=True)
            own = own[np.lexsort((positions[own], -times))]
            fill = order[: top_k + len(own)]
            out[user] = np.concatenate([own, fill[~np.isin(fill, own)]])[:top_k]
        return out
