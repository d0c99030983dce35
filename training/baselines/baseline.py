"""What every baseline offers, and the arrays they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from nann.kernels import NATIVE
from nann.scorer import Float32Array, Int32Array
from nann.signature import PADDING_ITEM

from ..data.prepared import PreparedData
from ..data.row_ranges import rows_before

_BLOCK_SCORES = 1 << 24
"""Scores, users times items, that are in memory at a time: 64 MB, and as much again for the items' numbers."""


class Baseline(Protocol):
    """A way to list items for users that is fitted in seconds to minutes on a CPU."""

    @classmethod
    def fit(cls, data: PreparedData) -> Baseline:
        """Learns from the rows of a data set that the deep model trains on."""

    def rank(self, behaviors: Int32Array, top_k: int) -> Int32Array:
        """The best items of each user, best first, equal ones by smaller item.

        Args:
            behaviors: `int32[U, L]`, oldest first, padded with -1; a user without any gets popular items.
            top_k: K.

        Returns:
            `int32[U, min(K, N)]`, distinct in a row. The user's own items may be among them.
        """


def known_interactions(data: PreparedData) -> Any:
    """How often each user met each item in the training rows: a sparse CSR matrix, `float32[users, N]`."""
    users = np.repeat(np.arange(data.user_count, dtype=np.int32), data.user_end - data.user_first)  # [R]
    known = rows_before(data.user_first, data.user_train_end, data.user_end)
    pairs = (users[known], data.behavior_items[known])
    shape = (data.user_count, data.item_count)
    return sparse.csr_matrix((np.ones(len(pairs[0]), np.float32), pairs), shape)


def history_matrix(behaviors: Int32Array, item_count: int, decay: float = 1.0) -> Any:
    """Behaviours, `int32[U, L]`, as a sparse CSR matrix, `float32[U, N]`.

    The latest behaviour weighs 1 and each earlier one `decay` times the next; an item that is there twice has the sum.
    """
    users, columns = np.nonzero(behaviors != PADDING_ITEM)
    weights = (decay ** np.arange(behaviors.shape[1] - 1, -1, -1.0)).astype(np.float32)
    pairs = (users, behaviors[users, columns])
    return sparse.csr_matrix((weights[columns], pairs), (len(behaviors), item_count))


def rank_by_scores(score: Callable[[slice], Float32Array], user_count: int, item_count: int, top_k: int) -> Int32Array:
    """The items with the best scores: `int32[U, min(K, N)]`, equal scores by smaller item.

    `score` gives the scores of all items for a range of users, `float32[B, N]`.
    """
    block, top_k = max(1, _BLOCK_SCORES // item_count), min(top_k, item_count)
    out = np.empty((user_count, top_k), np.int32)
    for start in range(0, user_count, block):
        scores = score(slice(start, start + block))
        items = np.tile(np.arange(item_count, dtype=np.int32), (len(scores), 1))
        nothing = np.empty((len(scores), 0), np.int32)
        ef = np.full(len(scores), top_k, np.int32)
        found, _, _ = NATIVE.merge_top(nothing, nothing.astype(np.float32), items, np.ascontiguousarray(scores), ef)
        out[start : start + block] = found
    return out
