"""Reads the layers of an hnswlib index out of its pickled state, for tests that compare searches with hnswlib's."""

import numpy as np

from nann.graph import HnswGraph, Layer


def graph_of_index(index, entry_layer):
    """The index's own graph, its labels (0..N-1) as item indices."""
    state = index.__getstate__()[0]
    count = state["cur_element_count"]
    labels = np.empty(count, np.int32)
    labels[state["label_lookup_internal"]] = state["label_lookup_external"]
    internal_levels = state["element_levels"][:count]
    ground = state["data_level0"].reshape(-1, state["size_data_per_element"])[:count]
    blocks = {0: ground[:, : state["offset_data"]].copy().view(np.uint32)}  # [N, 1 + max links]
    # An item of level n has n blocks in link_lists, one per layer above the ground, items in internal order.
    upper = state["link_lists"].view(np.uint32).reshape(-1, state["size_links_per_element"] // 4)
    first_block = np.cumsum(internal_levels) - internal_levels
    lists = [[np.empty(0, np.int32)] * count for _ in range(state["max_level"] + 1)]
    for internal, level in enumerate(internal_levels):
        for layer in range(level + 1):
            block = blocks[0][internal] if layer == 0 else upper[first_block[internal] + layer - 1]
            lists[layer][labels[internal]] = labels[block[1 : 1 + (block[0] & 0xFFFF)]]
    levels = np.empty(count, np.uint8)
    levels[labels] = internal_levels
    graph = HnswGraph(tuple(map(_layer, lists)), levels, entry_layer, int(labels[state["enterpoint_node"]]))
    graph.validate()
    return graph


def _layer(lists):
    indptr = np.cumsum([0, *map(len, lists)]).astype(np.int32)
    return Layer(indptr, np.concatenate(lists))
