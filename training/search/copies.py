"""Items with equal vectors: HNSW gets one of each, and the others hang from it on the ground layer.

HNSW gives an item its nearest neighbours. Those of an item with many copies are its copies alone, so no link leads in
or out of them, and their neighbourhood falls out of the graph.

The copies of an item form a tree below it. Equal vectors have equal scores, or nearly so, hence a search that keeps an
item goes on to its copies: by one round to the first `fan_out`, by two to their copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.graph import HnswGraph, Layer

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Copies:
    """Which items share a vector.

    Attributes:
        originals: `int64[U]` ascending, the first item of each vector.
        original_of: `int64[N]`, each item's row in `originals`.
    """

    originals: Int64Array
    original_of: Int64Array

    @classmethod
    def of(cls, vectors: npt.NDArray[np.float32]) -> Copies:
        """Compares the rows of `float32[N, d]`, 0 and -0 being equal."""
        rows = np.ascontiguousarray(vectors + np.float32(0)).view(f"V{vectors.itemsize * vectors.shape[1]}").ravel()
        _, first, group = np.unique(rows, return_index=True, return_inverse=True)
        by_item = np.argsort(first)
        place = np.empty_like(by_item)
        place[by_item] = np.arange(len(by_item))
        return cls(first[by_item], place[group.ravel()])

    def __len__(self) -> int:
        """How many items are copies of another."""
        return len(self.original_of) - len(self.originals)

    def attach(self, graph: HnswGraph, fan_out: int) -> HnswGraph:
        """The graph of all items from that of the originals.

        Args:
            graph: on the U originals.
            fan_out: how many copies an item leads to; each of them leads to as many more, and to its original's
                neighbours.
        """
        if not len(self):
            return graph
        count = len(self.original_of)
        levels = np.zeros(count, np.uint8)
        levels[self.originals] = graph.levels
        ground, *upper = (self._all_items(layer) for layer in graph.layers)
        entry_layer = graph.entry_layer
        if not upper:  # a search scores all of its entry layer: there the originals, not all items
            upper, levels[self.originals], entry_layer = [ground], 1, 1
        entry = int(self.originals[graph.hnsw_entry_point])
        attached = HnswGraph((ground.with_links(*self._links(ground, fan_out)), *upper), levels, entry_layer, entry)
        attached.validate()
        return attached

    def _all_items(self, layer: Layer) -> Layer:
        """A layer on the originals as one of all items, of which the copies have no links."""
        degrees = np.zeros(len(self.original_of), np.int64)
        degrees[self.originals] = np.diff(layer.indptr)
        return Layer.of(degrees, self.originals[layer.neighbors].astype(np.int32))

    def _links(self, ground: Layer, fan_out: int) -> tuple[Int64Array, Int64Array]:
        """The links of the copies, source and end of each: `int64[n]`."""
        members = np.argsort(self.original_of, kind="stable")  # of one vector together, its original first
        first = np.searchsorted(self.original_of[members], np.arange(len(self.originals)))
        rank = np.arange(len(members)) - first[self.original_of[members]]
        copies = np.flatnonzero(rank)
        items, parents = members[copies], members[copies - rank[copies] + (rank[copies] - 1) // fan_out]
        places, ends = ground.links_of(self.originals[self.original_of[items]])
        return np.concatenate([parents, items, items[places]]), np.concatenate([items, parents, ends])
