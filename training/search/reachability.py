"""Items that no walk can reach, whatever its ef and rounds, and how to link them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nann.graph import HnswGraph, Layer

LINKS = 4
"""How many nearest items link to a repaired one."""

_ITEM_CHUNK, _ORPHAN_CHUNK = 65_536, 256


@dataclass(frozen=True)
class Reachability:
    """What the ground layer's links leave out; item indices, ascending.

    Attributes:
        unreachable: `int64[n]`, not reached even by a walk of unlimited ef and rounds.
        no_in_links: `int64[m]`, no item of the ground layer links to them; those on an upper layer are found there.
    """

    unreachable: npt.NDArray[np.int64]
    no_in_links: npt.NDArray[np.int64]

    @classmethod
    def of(cls, graph: HnswGraph) -> Reachability:
        """Follows all links from the entry points down."""
        in_degree = np.bincount(graph.layers[0].neighbors, minlength=graph.item_count)
        return cls(np.flatnonzero(~reachable_items(graph)), np.flatnonzero(in_degree == 0))

    @property
    def orphans(self) -> npt.NDArray[np.int64]:
        """Both kinds."""
        return np.union1d(self.unreachable, self.no_in_links)


def reachable_items(graph: HnswGraph) -> npt.NDArray[np.bool_]:
    """Breadth-first from the entry points over each layer in turn: `bool[N]`."""
    reached = np.zeros(graph.item_count, np.bool_)
    reached[graph.entry_points] = True
    for layer in reversed(graph.layers[: graph.entry_layer + 1]):
        frontier = np.flatnonzero(reached)
        while frontier.size:
            neighbors = np.unique(_neighbors(layer, frontier))
            frontier = neighbors[~reached[neighbors]]
            reached[frontier] = True
    return reached


def link_orphans(
    graph: HnswGraph, vectors: npt.NDArray[np.float32], orphans: npt.NDArray[np.int64], links: int = LINKS
) -> HnswGraph:
    """The graph with ground links to each orphan from the nearest items (L2) that a walk can reach.

    Args:
        graph: the graph to repair; it is left as it is.
        vectors: `float32[N, d]`, those the graph was built on.
        orphans: `int64[n]` item indices.
        links: how many items link to each orphan.
    """
    hosts = reachable_items(graph)
    hosts[orphans] = False  # one orphan must not hang on another
    if not orphans.size or not hosts.any():
        return graph
    sources = _nearest(vectors, np.flatnonzero(hosts), orphans, links)  # [n, links]
    ground = _with_links(graph.layers[0], sources.reshape(-1), np.repeat(orphans, sources.shape[1]))
    repaired = replace(graph, layers=(ground, *graph.layers[1:]))
    repaired.validate()
    return repaired


def _neighbors(layer: Layer, items: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """All neighbours of `items`, in one array, with repetitions."""
    begin, end = layer.indptr[items].astype(np.int64), layer.indptr[items + 1].astype(np.int64)
    degrees = end - begin
    offsets = np.arange(degrees.sum()) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    found: npt.NDArray[np.int32] = layer.neighbors[np.repeat(begin, degrees) + offsets]
    return found


def _nearest(
    vectors: npt.NDArray[np.float32], hosts: npt.NDArray[np.int64], items: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """The `count` hosts nearest to each item, by brute force in chunks: int64[items, count]."""
    count = min(count, len(hosts))
    nearest = np.empty((len(items), count), np.int64)
    for start in range(0, len(items), _ORPHAN_CHUNK):
        chosen = items[start : start + _ORPHAN_CHUNK]
        best = np.empty((len(chosen), 0), np.int64)
        distance = np.empty((len(chosen), 0), np.float32)
        for first in range(0, len(hosts), _ITEM_CHUNK):
            chunk = hosts[first : first + _ITEM_CHUNK]
            found = (vectors[chunk] ** 2).sum(axis=1) - 2 * vectors[chosen] @ vectors[chunk].T  # less the item's norm
            distance = np.concatenate([distance, found], axis=1)
            best = np.concatenate([best, np.tile(chunk, (len(chosen), 1))], axis=1)
            kept = np.argsort(distance, axis=1, kind="stable")[:, :count]
            distance, best = np.take_along_axis(distance, kept, 1), np.take_along_axis(best, kept, 1)
        nearest[start : start + len(chosen)] = best
    return nearest


def _with_links(layer: Layer, sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> Layer:
    """The layer with further links, each at the end of its source's list; links it has already are left out."""
    count = len(layer.indptr) - 1
    owners = np.repeat(np.arange(count), np.diff(layer.indptr))
    known = np.isin(sources * count + targets, owners * count + layer.neighbors)
    all_owners = np.concatenate([owners, sources[~known]])
    neighbors = np.concatenate([layer.neighbors, targets[~known]]).astype(np.int32)
    order = np.argsort(all_owners, kind="stable")
    indptr = np.append(0, np.cumsum(np.bincount(all_owners, minlength=count)))
    return Layer(indptr.astype(np.int32), neighbors[order])
