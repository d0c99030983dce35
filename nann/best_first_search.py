"""HNSW-retrieval, the baseline: the original HNSW search with a scorer in place of the distance (section 6).

Its number of rounds has no bound. It is here for comparison with `beam_search` and is never served.
"""

from __future__ import annotations

import numpy as np

from nann.errors import RequestError
from nann.graph import HnswGraph
from nann.item_sets import bitmap_words, contains
from nann.kernels import NATIVE, BoolArray, Int32Array, Kernels
from nann.lockstep import Lockstep, has_items, keep_rows, overlay
from nann.scorer import Scorer
from nann.search_input import UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult
from nann.signature import PADDING_ITEM


def best_first_search(
    graph: HnswGraph, scorer: Scorer, users: UserBatch, top_k: int, ef: int, *, kernels: Kernels = NATIVE
) -> SearchResult:
    """Finds each user's best items as hnswlib's `knn_query` does: greedily to the ground, then best first.

    With negative L2 distances as scores it returns what `knn_query` returns, except for ties. Users walk in lockstep:
    each expands one item per step, and a step is one scorer call for all of them.

    Args:
        graph: the layers, all of which are used.
        scorer: gives the score of each candidate for its user; larger is better.
        users: their states are passed to the scorer.
        top_k: how many items to return.
        ef: length of the result list on the ground layer, at least top_k; above the ground it is 1.
        kernels: the inner loops.

    Raises:
        RequestError: if ef is below top_k, or items are blocked, which this study does not support.
        ScorerError: if the scorer's answer has the wrong shape or dtype, or holds NaN.
    """
    SearchParams(top_k, (ef,), (0,))  # checks both
    if users.blocked is not None:
        raise RequestError("users have blocked items; expected none: this search has no conditions, use beam_search")
    ef = min(ef, graph.item_count)
    walk = _BestFirstWalk(graph, Lockstep(graph, scorer, users.states, kernels, ef), kernels, ef)
    if len(users):
        walk.enter()
        while (candidates := walk.next_candidates()) is not None:
            walk.users.score(candidates, walk.current_ef())
    return walk.users.result(np.full(len(users), top_k, np.int64), top_k)


class _BestFirstWalk:
    """Which layer each of B users is on, and which items they have expanded there."""

    def __init__(self, graph: HnswGraph, users: Lockstep, kernels: Kernels, ef: int) -> None:
        self.users = users
        self._graph = graph
        self._kernels = kernels
        self._ef = ef
        self._layer = np.full(len(users.items), len(graph.layers) - 1, np.int32)
        self._expanded = np.zeros((len(users.items), bitmap_words(graph.item_count)), np.uint64)

    def current_ef(self) -> Int32Array:
        """`int32[B]`: `ef` for users on the ground, 1 for those above it."""
        return np.where(self._layer > 0, 1, self._ef).astype(np.int32)

    def enter(self) -> None:
        """Scores the entry point and starts the highest layer from it."""
        entry = np.full((len(self._layer), 1), self._graph.hnsw_entry_point, np.int32)
        self.users.score(entry, self.current_ef())
        self.users.start_layer(np.ones(len(self._layer), np.bool_))

    def next_candidates(self) -> Int32Array | None:
        """Expands items until each user has a candidate or is done; `int32[B, C]`, None if all are done.

        hnswlib stops when the best unexpanded candidate is worse than the worst of a full result list. Such a
        candidate has been pushed out of the list, so that is when W has no unexpanded member.
        """
        found = []
        searching = self._layer >= 0
        while searching.any():
            best = self._best_unexpanded(searching)
            expanding = has_items(best)
            for layer in np.unique(self._layer[expanding]):
                candidates = self.users.expand(int(layer), keep_rows(best, self._layer == layer))
                found.append(candidates)
                searching &= ~has_items(candidates)
            self._descend(searching & ~expanding)
            searching &= self._layer >= 0
        return overlay(found)

    def _best_unexpanded(self, users: BoolArray) -> Int32Array:
        """The best unexpanded member of W of these users (`bool[B]`), now expanded; `int32[B, 1]`, -1 = none."""
        items = self.users.items
        open_places = (items != PADDING_ITEM) & ~contains(self._expanded, items) & users[:, None]  # [B, width]
        first = open_places.argmax(axis=1)[:, None]  # W is sorted, best first
        best = np.where(
            np.take_along_axis(open_places, first, axis=1),
            np.take_along_axis(items, first, axis=1),
            np.int32(PADDING_ITEM),
        )
        self._kernels.mark(self._expanded, best)
        return best

    def _descend(self, users: BoolArray) -> None:
        self._layer[users] -= 1
        landed = users & (self._layer >= 0)
        if landed.any():
            self._expanded[landed] = 0
            self.users.start_layer(landed)
