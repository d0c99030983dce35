"""Takes nodes out of an HNSW graph: who linked to one of them gets links to its neighbours, as in FreshDiskANN."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nann.graph import Layer

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]

_CHUNK = 4096
"""Nodes that are repaired together."""
_MOST_CANDIDATES = 32
"""The nearest ones that a node may choose from: it lost few links."""


def without(layer: Layer, removed: npt.NDArray[np.bool_], vectors: Float32Array, most: int) -> Layer:
    """A layer in which no link leads to a removed node, or from one.

    A node keeps its other links. For each that it lost, it may get one to a neighbour of a removed neighbour: the
    nearest first, and none that is nearer to a neighbour that it has than to itself (the heuristic of HNSW).

    Args:
        layer: of N nodes.
        removed: `bool[N]`.
        vectors: `float32[N, d]`, which the graph was built on.
        most: links that a node may have.
    """
    count = len(removed)
    sources = np.repeat(np.arange(count), np.diff(layer.indptr))
    stays = ~removed[sources]
    lost = stays & removed[layer.neighbors]
    kept = stays & ~lost
    rest = Layer.of(np.bincount(sources[kept], minlength=count), layer.neighbors[kept])
    losses = np.bincount(sources[lost], minlength=count)
    repaired = np.flatnonzero(losses)
    found_sources, found_ends = [], []
    for start in range(0, len(repaired), _CHUNK):
        nodes = repaired[start : start + _CHUNK]
        links = _padded(len(nodes), *rest.links_of(nodes))
        candidates = _nearest_first(vectors, nodes, *_candidates(layer, rest, removed, nodes))
        room = np.minimum(losses[nodes], most - np.count_nonzero(links >= 0, axis=1))
        places, chosen = _chosen(vectors, nodes, links, candidates, room)
        found_sources.append(nodes[places])
        found_ends.append(chosen)
    if not found_sources:
        return rest
    return rest.with_links(np.concatenate(found_sources), np.concatenate(found_ends))


def _candidates(
    layer: Layer, rest: Layer, removed: npt.NDArray[np.bool_], nodes: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Neighbours of removed neighbours: the place of their node in `nodes`, ascending, and they, each once."""
    count = len(removed)
    places, first = layer.links_of(nodes)
    gone = removed[first]
    places, first = places[gone], first[gone].astype(np.int64)
    through, second = layer.links_of(first)
    places = places[through]
    fits = ~removed[second] & (second != nodes[places])
    pairs = np.unique(places[fits] * count + second[fits])
    own, linked = rest.links_of(nodes)
    pairs = np.setdiff1d(pairs, own * count + linked, assume_unique=True)
    return pairs // count, pairs % count


def _nearest_first(vectors: Float32Array, nodes: Int64Array, own: Int64Array, ends: Int64Array) -> Int64Array:
    """The candidates of each node, the nearest first: `int64[n, any]`, padded with -1."""
    distances = _squared(vectors[nodes[own]] - vectors[ends])
    order = np.lexsort((ends, distances, own))
    return _padded(len(nodes), own[order], ends[order])[:, :_MOST_CANDIDATES]


def _chosen(
    vectors: Float32Array, nodes: Int64Array, links: Int64Array, candidates: Int64Array, room: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """The links that each node gets: the place of their source in `nodes`, and their end.

    Seen from a node, a candidate c is nearer to a neighbour v than to the node if c v > v v / 2.
    """
    seen_from = vectors[nodes][:, None]
    near = vectors[candidates] - seen_from  # [n, C, d]
    known = vectors[links] - seen_from  # [n, W, d]
    halves = np.where(links < 0, np.inf, _squared(known) / 2)
    free = (candidates >= 0) & ~(near @ known.transpose(0, 2, 1) > halves[:, None]).any(axis=2)  # [n, C]
    free &= (room > 0)[:, None]
    left = room.copy()
    places, ends = [], []
    while (at := np.flatnonzero(free.any(axis=1))).size:
        first = free[at].argmax(axis=1)
        places.append(at)
        ends.append(candidates[at, first])
        chosen = near[at, first]
        beside = (near[at] @ chosen[..., None])[..., 0] > _squared(chosen)[:, None] / 2
        left[at] -= 1
        free[at] &= ~beside & (left[at] > 0)[:, None]
        free[at, first] = False  # also one without any distance to its node
    if not places:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(places), np.concatenate(ends)


def _padded(count: int, rows: Int64Array, values: npt.NDArray[np.integer[Any]]) -> Int64Array:
    """Values in ascending rows as `int64[count, most of a row]`, padded with -1."""
    places = np.arange(len(rows)) - np.searchsorted(rows, rows)
    padded = np.full((count, int(places.max(initial=-1)) + 1), -1, np.int64)
    padded[rows, places] = values
    return padded


def _squared(differences: Float32Array) -> Float32Array:
    result: Float32Array = np.einsum("...i,...i->...", differences, differences)
    return result
