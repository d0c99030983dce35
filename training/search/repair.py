"""Links items that no search can reach, or to which no link leads (`nann tune --repair`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nann.graph import HnswGraph, Layer
from nann.reachability import reachable_items

from .nearest import nearest

LINKS = 4
"""How many nearest items link to a repaired one."""


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
    sources = nearest(vectors, np.flatnonzero(hosts), vectors[orphans], links)  # [n, links]
    ground = _with_links(graph.layers[0], sources.reshape(-1), np.repeat(orphans, sources.shape[1]))
    repaired = replace(graph, layers=(ground, *graph.layers[1:]))
    repaired.validate()
    return repaired


def _with_links(layer: Layer, sources: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Layer:
    """The layer with new links from `sources` to `ends`, appended to the lists of their sources; none twice."""
    count = len(layer.indptr) - 1
    owners = np.repeat(np.arange(count), np.diff(layer.indptr))
    known = np.isin(sources * count + ends, owners * count + layer.neighbors)
    return layer.with_links(sources[~known], ends[~known])
