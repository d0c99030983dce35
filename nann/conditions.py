"""Which items the users of one batch may be shown, and how many."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.graph import HnswGraph
from nann.kernels import BoolArray, Int32Array, Int64Array, Kernels, Uint64Array
from nann.search_input import UserBatch
from nann.signature import PADDING_ITEM

_NEW_NEIGHBORS = 1 / 3
"""The share of an expanded item's neighbours that a search has not visited yet."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """What B users may be shown of N items.

    Attributes:
        item_count: N.
        blocked: `uint64[B, W]`, the items that a user may not be shown.
        matching: `int64[B]`, how many items are left.
        hindered: `bool[B]`, True: there are blocked items in the graph, so that the user's walk must mind them. They
            may all be added ones, or the gap before these.
    """

    item_count: int
    blocked: Uint64Array
    matching: Int64Array
    hindered: BoolArray

    @classmethod
    def of(cls, users: UserBatch, item_count: int, kernels: Kernels, linked: int | None = None) -> Conditions | None:
        """Those of a batch; None: all items may be shown to all users.

        Args:
            users: B of them.
            item_count: N.
            kernels: the inner loops.
            linked: so many items, the first, are in the graph; None: all.

        Raises:
            RequestError: if the users' blocked items are not of N items.
        """
        blocked = users.blocked_of(item_count)
        if blocked is None:
            return None
        count = kernels.count(blocked)
        word, bit = divmod(item_count if linked is None else linked, 64)
        beyond = np.array(blocked[:, word:])
        beyond[:, :1] &= ~np.uint64((1 << bit) - 1)
        return cls(item_count, blocked, item_count - count, count > kernels.count(beyond))

    @staticmethod
    def reach(graph: HnswGraph, layer: int) -> int:
        """About how many new items an expanded item leads to without conditions; for `Kernels.expand_through`."""
        return math.ceil(_NEW_NEIGHBORS * graph.mean_degrees[layer])

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> Conditions:
        """Those of these users, ascending and distinct; nothing is copied if that is all of them."""
        if len(rows) == len(self.matching):
            return self
        return Conditions(self.item_count, self.blocked[rows], self.matching[rows], self.hindered[rows])

    @property
    def restricted(self) -> BoolArray:
        """`bool[B]`, True: there are items that the user may not be shown."""
        restricted: BoolArray = self.matching < self.item_count
        return restricted

    def split(self, items: Int32Array) -> tuple[Int32Array, Int32Array]:
        """`int32[B, X]` as those that may be shown and those that may not, -1 in place of the others."""
        blocked = item_sets.contains(self.blocked, items)
        none = np.int32(PADDING_ITEM)
        return np.where(blocked, none, items), np.where(blocked, items, none)

    def members(self, row: int) -> Int32Array:
        """All items that may be shown to one user, ascending."""
        return item_sets.members(item_sets.invert(self.blocked[row], self.item_count))

    def some(self, row: int, count: int, but: Int32Array) -> Int32Array:
        """Up to `count` of them that are not in `but` (`int32[X]`), spread evenly over the item numbers."""
        others = np.setdiff1d(self.members(row), but, assume_unique=True)
        count = min(count, len(others))
        return np.asarray(others[np.arange(count) * len(others) // max(count, 1)])


def packed(items: Int32Array) -> Int32Array:
    """`int32[B, X]` with each row's padding moved to its end, and without columns of nothing but padding."""
    padding = items == PADDING_ITEM
    order = np.argsort(padding, axis=1, kind="stable")
    filled = int((~padding).sum(axis=1).max(initial=0))
    return np.ascontiguousarray(np.take_along_axis(items, order, axis=1)[:, :filled])


def padded(rows: list[Int32Array]) -> Int32Array:
    """Rows of different lengths as one array, padded with -1 at their ends."""
    items = np.full((len(rows), max(map(len, rows), default=0)), PADDING_ITEM, np.int32)
    for place, row in zip(items, rows, strict=True):
        place[: len(row)] = row
    return items
