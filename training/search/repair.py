"""Links items that no search can reach, or to which no link leads (`nann tune --repair`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nann.graph import HnswGraph, Layer
from nann.reachability import reachable_items

LINKS = 4
"""How many nearest items link to a repaired one."""

_ITEM_CHUNK, _ORPHAN_CHUNK = 65_536, 256


def link_orphans(
    graph: HnswGraph, vectors: npt.NDArray[np.float32], orphans: npt.NDArray[np.int64], links: int = LINKS
) -> HnswGraph:
    """Gives each orphan ground layer links from the nearest items (L2) that a search can reach.

    Args:
        graph: the graph to repair; not changed.
        vectors: `float32[N, d]`, which the graph was built on.
        orphans: `int64[n]` item indices.
        links: how many items link to each orphan.
    """
    hosts = reachable_items(graph)
    hosts[orphans] = False  # no orphan may depend on another
    if not orphans.size or not hosts.any():
        return graph
    sources = _nearest(vectors, np.flatnonzero(hosts), orphans, links)  # [n, links]
    ground = _with_links(graph.layers[0], sources.reshape(-1), np.repeat(orphans, sources.shape[1]))
    repaired = replace(graph, layers=(ground, *graph.layers[1:]))
    repaired.validate()
    return repaired


def _nearest(
    vectors: npt.NDArray[np.float32], hosts: npt.NDArray[np.int64], items: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """The `count` hosts nearest to each item, by brute force in chunks: `int64[items, count]`."""
    count = min(count, len(hosts))
    nearest = np.empty((len(items), count), np.int64)
    for start in range(0, len(items), _ORPHAN_CHUNK):
        chosen = items[start : start + _ORPHAN_CHUNK]
        best = np.empty((len(chosen), 0), np.int64)
        distance = np.empty((len(chosen), 0), np.float32)
        for first in range(0, len(hosts), _ITEM_CHUNK):
            chunk = hosts[first : first + _ITEM_CHUNK]
            # Squared distances without the item's own norm, which does not change the order.
            found = (vectors[chunk] ** 2).sum(axis=1) - 2 * vectors[chosen] @ vectors[chunk].T
            distance = np.concatenate([distance, found], axis=1)
            best = np.concatenate([best, np.tile(chunk, (len(chosen), 1))], axis=1)
            kept = np.argpartition(distance, min(count, distance.shape[1]) - 1, axis=1)[:, :count]
            distance, best = np.take_along_axis(distance, kept, 1), np.take_along_axis(best, kept, 1)
        nearest[start : start + len(chosen)] = np.take_along_axis(best, np.argsort(distance, axis=1), 1)
    return nearest


def _with_links(layer: Layer, sources: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Layer:
    """The layer with new links from `sources` to `ends`, appended to the lists of their sources; none twice."""
    count = len(layer.indptr) - 1
    owners = np.repeat(np.arange(count), np.diff(layer.indptr))
    known = np.isin(sources * count + ends, owners * count + layer.neighbors)
    return layer.with_links(sources[~known], ends[~known])
