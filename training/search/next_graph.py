"""The graph of a corpus that changed, from that before: items leave it and others join it; the rest stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

import hnswlib
import numpy as np
import numpy.typing as npt

from nann.graph import HnswGraph, Layer
from nann.reachability import reachable_items

from ..config import IndexConfig
from .copies import Copies
from .index import build_graph, graph_from_hnswlib
from .removal import without
from .repair import link_orphans

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


def next_graph(
    graph: HnswGraph,
    vectors: Float32Array,
    next_vectors: Float32Array,
    old_of: Int64Array,
    config: IndexConfig,
    *,
    threads: int = -1,
) -> HnswGraph:
    """The graph of M items, of which some were among the N of a graph before.

    HNSW has one node for each vector, from which items with equal vectors hang (`Copies`). A node goes with the last
    of its items. New nodes are inserted by hnswlib as if the others had been inserted before. Items that no search
    could reach any more are linked from their nearest ones.

    Args:
        graph: from `build_graph`, or from here.
        vectors: `float32[N, d]`, which it was built on.
        next_vectors: `float32[M, d]`.
        old_of: `int64[M]`, which of the N items each is, with the same vector; -1: a new one.
        config: M and ef_construction of the graph, and random seed.
        threads: hnswlib's threads. With 1 thread the same input gives the same graph.
    """
    copies = Copies.of(next_vectors)
    stays = old_of >= 0
    if not stays.any():
        return build_graph(next_vectors, copies, config, threads=threads)
    old_copies = Copies.of(vectors)
    next_of = np.full(len(old_copies.originals), -1, np.int64)  # node -> node
    next_of[old_copies.original_of[old_of[stays]]] = copies.original_of[stays]
    nodes = _Nodes.of(graph, old_copies).without(next_of < 0, vectors[old_copies.originals], config)
    survivors = np.flatnonzero(next_of >= 0)
    node_vectors = next_vectors[copies.originals]
    labels = next_of[survivors]
    index = _hnswlib_index(nodes, labels, node_vectors, config)
    joined = np.setdiff1d(np.arange(len(node_vectors)), labels)
    if len(joined):
        index.add_items(node_vectors[joined], joined, num_threads=threads)
    grown = copies.attach(graph_from_hnswlib(index, graph.entry_layer), fan_out=config.m)
    missed = ~reachable_items(grown)
    if missed.any():
        missed[stays] &= reachable_items(graph)[old_of[stays]]
        grown = link_orphans(grown, next_vectors, np.flatnonzero(missed))
    return grown


@dataclass(frozen=True)
class _Nodes:
    """The layers of an HNSW graph without copies, ground layer first."""

    layers: list[Layer]
    levels: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, graph: HnswGraph, copies: Copies) -> _Nodes:
        """Undoes `Copies.attach`."""
        node_of = np.full(graph.item_count, -1, np.int64)
        node_of[copies.originals] = np.arange(len(copies.originals))
        layers = [_selected(layer, copies.originals, node_of) for layer in graph.layers]
        return cls(layers, graph.levels[copies.originals])

    def without(self, removed: npt.NDArray[np.bool_], vectors: Float32Array, config: IndexConfig) -> _Nodes:
        """The graph without some nodes; the others keep their order."""
        if not removed.any():
            return self
        survivors = np.flatnonzero(~removed)
        place_of = np.full(len(removed), -1, np.int64)
        place_of[survivors] = np.arange(len(survivors))
        levels = self.levels[survivors]
        layers = []
        for number, layer in enumerate(self.layers[: int(levels.max()) + 1]):
            most = config.m if number else 2 * config.m
            layers.append(_selected(without(layer, removed, vectors, most), survivors, place_of))
        return _Nodes(layers, levels)


def _selected(layer: Layer, nodes: Int64Array, place_of: Int64Array) -> Layer:
    """The links among some nodes, by their places."""
    sources, ends = layer.links_of(nodes)
    known = place_of[ends] >= 0
    return Layer.of(np.bincount(sources[known], minlength=len(nodes)), place_of[ends[known]].astype(np.int32))


def _hnswlib_index(nodes: _Nodes, labels: Int64Array, vectors: Float32Array, config: IndexConfig) -> hnswlib.Index:
    """An index that holds these nodes under these labels, with room for all `vectors` (`float32[U, d]`, by label)."""
    count, capacity, width = len(labels), len(vectors), vectors.shape[1]
    links0 = 4 + 4 * 2 * config.m  # hnswlib's link list: a 2-byte count, 2 bytes of flags, then 4-byte internal ids
    elements = np.zeros((count, links0 + 4 * width + 8), np.uint8)
    elements[:, :links0] = _link_lists(nodes.layers[0], np.arange(count), 2 * config.m)
    elements[:, links0:-8] = np.ascontiguousarray(vectors[labels]).view(np.uint8)
    elements[:, -8:] = labels.astype(np.uint64)[:, None].view(np.uint8)
    levels = np.zeros(capacity, np.int32)
    levels[:count] = nodes.levels
    first_list = np.cumsum(levels) - levels  # an element of level l has l consecutive lists, layer 1 first
    upper = np.zeros((int(levels.sum()), 4 + 4 * config.m), np.uint8)
    for number, layer in enumerate(nodes.layers[1:], 1):
        on_layer = np.flatnonzero(nodes.levels >= number)
        upper[first_list[on_layer] + number - 1] = _link_lists(layer, on_layer, config.m)
    empty = hnswlib.Index(space="l2", dim=width)
    empty.init_index(capacity, M=config.m, ef_construction=config.ef_construction, random_seed=config.seed + count)
    state = {
        **empty.__getstate__()[0],
        "ep_added": True,
        "cur_element_count": count,
        "max_level": int(nodes.levels.max()),
        "enterpoint_node": int(np.argmax(nodes.levels)),
        "label_lookup_external": labels.astype(np.uint64),
        "label_lookup_internal": np.arange(count, dtype=np.uint32),
        "element_levels": levels,
        "data_level0": elements.view(np.int8).ravel(),
        "link_lists": upper.view(np.int8).ravel(),
    }
    index = hnswlib.Index.__new__(hnswlib.Index)
    index.__setstate__((state,))
    return index


def _link_lists(layer: Layer, nodes: Int64Array, most: int) -> npt.NDArray[np.uint8]:
    """The lists of some nodes as hnswlib has them, `uint8[n, 4 + 4 most]`, less what a repair added beyond `most`."""
    sources, ends = layer.links_of(nodes)
    places = np.arange(len(sources)) - np.searchsorted(sources, sources)
    fits = places < most
    lists = np.zeros((len(nodes), 1 + most), np.uint32)
    lists[:, 0] = np.minimum(np.bincount(sources, minlength=len(nodes)), most)
    lists[sources[fits], 1 + places[fits]] = ends[fits]
    return lists.view(np.uint8)
