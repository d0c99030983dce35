"""The items nearest to some vectors, by brute force."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nann.scorer import Float32Array

Int64Array = npt.NDArray[np.int64]

_QUERIES, _BLOCK, _BLOCKS = 256, 256, 8
"""Queries at a time, items of a block, and blocks at a time: so few scores that they stay in a cache."""


def nearest(keys: Float32Array, items: Int64Array, queries: Float32Array, count: int) -> Int64Array:
    """The `count` items nearest (L2) to each query, nearest first: `int64[Q, min(count, n)]`.

    The items are taken in blocks. The nearest ones are in as many blocks, those whose best items are nearest: only
    their items are sorted.

    Args:
        keys: `float32[N, k]`.
        items: `int64[n]`, those of the N to choose from; at least one.
        queries: `float32[Q, k]`.
        count: at least 1.
    """
    found = np.empty((len(queries), min(count, len(items))), np.int64)
    for start in range(0, len(queries), _QUERIES):
        asked = queries[start : start + _QUERIES]
        best = _best_of_blocks(keys, items, asked)
        blocks = np.argpartition(-best, min(count, best.shape[1]) - 1, axis=1)[:, :count]
        places = (blocks[..., None] * _BLOCK + np.arange(_BLOCK)).reshape(len(asked), -1)
        for row, (query, own) in enumerate(zip(asked, places, strict=True), start):
            close = items[own[own < len(items)]]
            order = np.argsort(((keys[close] - query) ** 2).sum(axis=1), kind="stable")
            found[row] = close[order[: found.shape[1]]]
    return found


def _best_of_blocks(keys: Float32Array, items: Int64Array, queries: Float32Array) -> Float32Array:
    """How near the nearest item of each block is, the nearer the more: `float32[Q, blocks]`."""
    asked = np.column_stack([queries, np.ones(len(queries), np.float32)])
    best, step = [], _BLOCK * _BLOCKS
    for first in range(0, len(items), step):
        part = keys[items[first : first + step]]
        padded = np.zeros((-(-len(part) // _BLOCK) * _BLOCK, keys.shape[1] + 1), np.float32)
        padded[:, -1] = -np.inf
        padded[: len(part), :-1] = part
        padded[: len(part), -1] = (part**2).sum(axis=1) / -2  # q k - k k / 2 orders keys as their distances do
        best.append((asked @ padded.T).reshape(len(asked), -1, _BLOCK).max(axis=2))
    return np.concatenate(best, axis=1)
