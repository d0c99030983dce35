"""Where an item belongs in a graph that came without what the graph is built on: among those that are like it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nann.scorer import Float32Array

Int64Array = npt.NDArray[np.int64]

NEAREST = 8
"""So many items are asked."""
_BLOCKS = 1024
"""Each part of the corpus gives its nearest item: of so many, the nearest are nearly those of the corpus."""
_QUERIES, _ITEMS = 256, 1 << 16


def mean_of_nearest(vectors: Float32Array, keys: Float32Array, queries: Float32Array) -> Float32Array:
    """For each query the mean vector of the items whose keys are nearest to it (L2): `float32[Q, d]`.

    Args:
        vectors: `float32[N, d]`.
        keys: `float32[N, k]`, of the same items.
        queries: `float32[Q, k]`.
    """
    found = np.empty((len(queries), vectors.shape[1]), np.float32)
    size = -(-len(keys) // _BLOCKS)
    for start in range(0, len(queries), _QUERIES):
        asked = queries[start : start + _QUERIES]
        nearest, distances = _of_each_block(keys, asked, size)
        kept = np.argsort(distances, axis=1, kind="stable")[:, :NEAREST]
        found[start : start + len(asked)] = vectors[np.take_along_axis(nearest, kept, 1)].mean(axis=1)
    return found


def _of_each_block(keys: Float32Array, queries: Float32Array, size: int) -> tuple[Int64Array, Float32Array]:
    """The nearest item of each `size` items, and its squared distance less the query's own norm: `[Q, blocks]` each."""
    items, distances = [], []
    step = max(_ITEMS // size, 1) * size
    for first in range(0, len(keys), step):
        part = keys[first : first + step]
        away = (part**2).sum(axis=1) - 2 * queries @ part.T  # [Q, part]
        away = np.pad(away, ((0, 0), (0, -len(part) % size)), constant_values=np.inf)
        away = away.reshape(len(queries), -1, size)
        best = away.argmin(axis=2)
        items.append(first + best + size * np.arange(best.shape[1]))
        distances.append(np.take_along_axis(away, best[..., None], 2)[..., 0])
    return np.concatenate(items, axis=1), np.concatenate(distances, axis=1)
