"""Item-kNN: the items that the same users met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from nann.scorer import Float32Array, Int32Array

from ..data.prepared import PreparedData
from .baseline import history_matrix, known_interactions, rank_by_scores
from .plain import Popular

_SHRINKAGE = 5.0
_DECAY = 0.8
_NEIGHBORS = 1000
_BLOCK_PAIRS = 1 << 24
"""Pairs of items that are counted at a time; they take about half a gigabyte."""


@dataclass(frozen=True)
class ItemKnn:
    """Items similar to those of the history, the latest behaviour first: each earlier one weighs 0.8 of the next.

    The similarity of two items is the cosine of their users with shrinkage, n_ij / (sqrt(n_i n_j) + 5) with n_ij users
    who met both; an item is similar to itself too, and each to its 1000 nearest. Popular items fill the list up.

    Attributes:
        met: sparse CSR matrix, `float32[users, N]`: 1 where a user met an item.
        popular: fills lists up.
    """

    met: Any
    popular: Popular

    @classmethod
    def fit(cls, data: PreparedData) -> ItemKnn:
        """Takes the users' items; similarities are computed for the items that are asked for."""
        met = known_interactions(data)
        met.data[:] = 1
        return cls(met, Popular.fit(data))

    def rank(self, behaviors: Int32Array, top_k: int) -> Int32Array:
        """See `baseline.Baseline`."""
        item_count = self.met.shape[1]
        history = history_matrix(behaviors, item_count, _DECAY)
        items = np.unique(history.indices)
        history, similar = history[:, items], self.similarities(items)
        popular = -self.popular.positions.astype(np.float32)

        def score(users: slice) -> Float32Array:
            scores: Float32Array = (history[users] @ similar).toarray()
            return np.where(scores > 0, scores, popular)

        return rank_by_scores(score, len(behaviors), item_count, top_k)

    def similarities(self, items: Int32Array) -> Any:
        """Similarities of some items, `int32[n]`, to their nearest: a sparse CSR matrix, `float32[n, N]`."""
        counts = np.bincount(self.met.indices, minlength=self.met.shape[1]).astype(np.float32)
        users_of = self.met.T.tocsr()
        pairs = np.cumsum(users_of[items] @ np.diff(self.met.indptr))  # [n], how many are counted up to an item
        blocks = np.split(items, np.searchsorted(pairs, np.arange(_BLOCK_PAIRS, pairs.max(initial=0), _BLOCK_PAIRS)))
        rows = [_nearest(users_of[block] @ self.met, block, counts) for block in blocks]
        return sparse.vstack(rows, format="csr")


def _nearest(together: Any, items: Int32Array, counts: Float32Array) -> Any:
    """The largest similarities a row, given how many users met two items: CSR, `float32[n, N]`, for `int32[n]`."""
    norms = np.sqrt(np.repeat(counts[items], np.diff(together.indptr)) * counts[together.indices])
    together.data = (together.data / (norms + _SHRINKAGE)).astype(np.float32)
    # One number to sort by: a positive float's bits are ordered as it is; of equal ones the smaller item comes first.
    keys = together.data.view(np.int32).astype(np.int64) << 32 | (len(counts) - together.indices)
    keep = np.ones(len(keys), np.bool_)
    for start, end in zip(together.indptr[:-1], together.indptr[1:], strict=True):
        if (rest := end - start - _NEIGHBORS) > 0:
            keep[start + np.argpartition(keys[start:end], rest)[:rest]] = False
    together.data[~keep] = 0
    together.eliminate_zeros()
    return together
