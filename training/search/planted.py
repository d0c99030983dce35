"""Corpora of any size without training: vectors in overlapping clusters, their HNSW graph, a small scorer.

Ten million items take minutes, not days. A smaller corpus is the first items of a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nann.array_files import load_array
from nann.bundle import ITEM_VECTORS_FILE
from nann.durable_files import new_folder
from nann.graph import HnswGraph
from nann.scorer import Float32Array, Int32Array

from ..config import IndexConfig
from .index import build_hnsw, graph_from_hnswlib

WIDTH = 16
"""Of the vectors: narrow, so that ten million items are indexed in minutes."""
M, EF_CONSTRUCTION = 16, 40
LARGEST_ENTRY_LAYER = 4096
"""Most items of the entry layer: all of them are scored, and a layer of fixed number would grow with the corpus."""
_CLUSTERS, _SPREAD, _HIDDEN, _BEND = 1000, 0.6, 32, 0.05
_BLOCK = 1 << 20
_FITTED = 4096


@dataclass(frozen=True)
class PlantedCorpus:
    """N items.

    Attributes:
        vectors: `float32[N, WIDTH]`, of unit length.
        graph: their HNSW graph by L2; its entry layer is the lowest of at most `LARGEST_ENTRY_LAYER` items.
    """

    vectors: Float32Array
    graph: HnswGraph

    @classmethod
    def cached(cls, cache: Path, item_count: int) -> PlantedCorpus:
        """Opens the corpus in `cache`, memory-mapped; makes it first if necessary (10 million items: many minutes)."""
        folder = cache / f"planted-{item_count}-m{M}-ef{EF_CONSTRUCTION}-d{WIDTH}"
        if not folder.is_dir():
            _make(folder, item_count)
        layer_count = len(list(folder.glob("layer*.indptr.npy")))
        graph = HnswGraph.load(folder, layer_count, 0, 0)
        small = (number for number, size in enumerate(graph.layer_sizes) if size <= LARGEST_ENTRY_LAYER)
        graph = replace(graph, entry_layer=next(small, layer_count - 1))
        return cls(load_array(folder / ITEM_VECTORS_FILE, np.float32, 2), graph)


class PlantedScorer:
    """Scores by inner product plus a small random MLP of both vectors, so that no metric explains the scores.

    Args:
        vectors: `float32[N, WIDTH]`.
    """

    def __init__(self, vectors: Float32Array) -> None:
        rng = np.random.default_rng(1)
        self._vectors = vectors
        self._item_weights, self._user_weights = rng.standard_normal((2, WIDTH, _HIDDEN), np.float32)
        self._out = _BEND * rng.standard_normal(_HIDDEN, np.float32)

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`; `user_states` is `float32[B, WIDTH]`, more columns are not read."""
        scores = np.empty(candidates.shape, np.float32)
        for row, (user, items) in enumerate(zip(user_states[:, :WIDTH], candidates, strict=True)):
            vectors = self._vectors.take(items, axis=0, mode="wrap")  # [C, WIDTH]
            hidden = vectors @ self._item_weights
            hidden += user @ self._user_weights
            scores[row] = vectors @ user + np.maximum(hidden, 0, out=hidden) @ self._out
        return scores

    def with_light(self, users: Float32Array) -> Float32Array:
        """The users (`float32[B, WIDTH]`), followed by vectors whose inner products with items' come near the scores.

        They are fitted to each user's scores of a sample of the items: `float32[B, 2 WIDTH]`.
        """
        sample = np.random.default_rng(2).choice(len(self._vectors), min(_FITTED, len(self._vectors)), replace=False)
        sample = sample.astype(np.int32)
        features = np.column_stack([self._vectors[sample], np.ones(len(sample))])  # the 1 for each user's mean
        fitted, *_ = np.linalg.lstsq(features, self.score(users, np.tile(sample, (len(users), 1))).T, rcond=None)
        return np.hstack([users, fitted[:-1].T.astype(np.float32)])


def planted_vectors(start: int, stop: int, seed: int = 0) -> Float32Array:
    """Vectors `start` to `stop - 1` of the endless corpus of this random seed: `float32[stop - start, WIDTH]`."""
    centres = np.random.default_rng(0).standard_normal((_CLUSTERS, WIDTH), np.float32)
    blocks = []
    for number in range(start // _BLOCK, -(-stop // _BLOCK)):
        rng = np.random.default_rng((seed, number))
        block = centres[rng.integers(0, _CLUSTERS, _BLOCK)]
        block += _SPREAD * rng.standard_normal((_BLOCK, WIDTH), np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        first = number * _BLOCK
        blocks.append(block[max(start - first, 0) : stop - first])
    return np.concatenate(blocks)


def _make(folder: Path, item_count: int) -> None:
    with new_folder(folder) as made:
        vectors = planted_vectors(0, item_count)
        np.save(made / ITEM_VECTORS_FILE, vectors, allow_pickle=False)
        index = build_hnsw(vectors, IndexConfig(m=M, ef_construction=EF_CONSTRUCTION))
        graph_from_hnswlib(index, 0).save(made)
