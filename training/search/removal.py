"""Takes nodes out of an HNSW graph: who linked to one of them gets links to its neighbours, as in FreshDiskANN."""

from __future__ import annotations

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
    repaired = np.unique(sources[lost])
    found_sources, found_ends = [], []
    for start in range(0, len(repaired), _CHUNK):
        nodes = repaired[start : start + _CHUNK]
        own, ends = _candidates(layer, rest, removed, nodes)
        places, chosen = _chosen(rest, vectors, nodes, own, ends, np.bincount(sources[lost], minlength=count), most)
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


def _chosen(
    rest: Layer,
    vectors: Float32Array,
    nodes: Int64Array,
    own: Int64Array,
    ends: Int64Array,
    lost: Int64Array,
    most: int,
) -> tuple[Int64Array, Int64Array]:
    """The links that each node gets: the place of their source in `nodes`, and their end."""
    distances = _squared(vectors[nodes[own]] - vectors[ends])
    order = np.lexsort((ends, distances, own))
    own, ends, distances = own[order], ends[order], distances[order]
    rank = np.arange(len(own)) - np.searchsorted(own, own)
    links, has = _padded(rest, nodes, most + _MOST_CANDIDATES)  # room for the new ones
    room = np.minimum(lost[nodes], most - has)
    found: list[tuple[Int64Array, Int64Array]] = []
    for number in range(_MOST_CANDIDATES):
        of_rank = rank == number
        of_rank[of_rank] &= room[own[of_rank]] > 0
        at, candidates = own[of_rank], ends[of_rank]
        if not len(at):
            continue
        width = int(has[at].max())
        known = links[at, :width]
        between = _squared(vectors[known] - vectors[candidates][:, None])
        between[known < 0] = np.inf
        fits = (between.min(axis=1, initial=np.inf) >= distances[of_rank]) | (has[at] == 0)
        at, candidates = at[fits], candidates[fits]
        links[at, has[at]] = candidates
        has[at] += 1
        room[at] -= 1
        found.append((at, candidates))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([at for at, _ in found]), np.concatenate([each for _, each in found])


def _padded(layer: Layer, nodes: Int64Array, width: int) -> tuple[Int64Array, Int64Array]:
    """The links of some nodes, `int64[n, W]` padded with -1 with W at least `width`, and how many each has."""
    places, ends = layer.links_of(nodes)
    has = np.bincount(places, minlength=len(nodes))
    links = np.full((len(nodes), max(width, int(has.max(initial=0)) + _MOST_CANDIDATES)), -1, np.int64)
    links[places, np.arange(len(places)) - np.searchsorted(places, places)] = ends
    return links, has


def _squared(differences: Float32Array) -> Float32Array:
    result: Float32Array = np.einsum("...i,...i->...", differences, differences)
    return result
