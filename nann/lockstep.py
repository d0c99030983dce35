"""The state of a batch of users who walk a graph in lockstep: every step is one scorer call for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.conditions import Conditions
from nann.errors import ScorerError
from nann.graph import HnswGraph
from nann.item_sets import bitmap_words
from nann.kernels import BoolArray, Float32Array, Int32Array, Kernels
from nann.scorer import Scorer
from nann.search_result import SearchResult, fit
from nann.signature import PADDING_ITEM, PADDING_SCORE
from nann.threads import fitting_threads

RowArray = npt.NDArray[np.intp]
_EXPANDED_PER_THREAD, _MERGED_PER_THREAD = 5_000, 16_000
"""Items to expand, and to merge into W, that justify a thread: 0.2 ms of work, as its start may take half of that."""


class Lockstep:
    """Visited marks, results and counters of B users.

    The search decides what to expand next, and when a user is done.

    Attributes:
        items: `int32[B, width]`, W of the paper: the best items of each user so far, best first, padded with -1.
        scores: `float32[B, width]`, their scores, padded with `PADDING_SCORE`.
    """

    def __init__(
        self,
        graph: HnswGraph,
        scorer: Scorer,
        user_states: Float32Array,
        kernels: Kernels,
        width: int,
        conditions: Conditions | None = None,
        item_count: int | None = None,
    ) -> None:
        """`item_count`: N, or one more than the index of the last item that joined after the graph was built."""
        users = len(user_states)
        self.items = np.full((users, width), PADDING_ITEM, np.int32)
        self.scores = np.full((users, width), PADDING_SCORE, np.float32)
        self._graph = graph
        self._scorer = scorer
        self._user_states = np.ascontiguousarray(user_states)
        self._kernels = kernels
        self._item_count = graph.item_count if item_count is None else item_count
        self._visited = np.zeros((users, bitmap_words(self._item_count)), np.uint64)
        self._all_linked = self._item_count == graph.item_count
        self._items_scored = np.zeros(users, np.int32)
        self._rounds = np.zeros(users, np.int32)
        self._conditions = conditions

    def start_layer(self, users: BoolArray) -> None:
        """Forgets what these users (`bool[B]`) visited on the layer above; only their W counts as visited."""
        self._visited[users] = 0
        self._kernels.mark(self._visited, keep_rows(self.items, users))

    def mark(self, items: Int32Array) -> None:
        """Marks `items` (`int32[B, X]`, -1 ignored) as visited."""
        self._kernels.mark(self._visited, items)

    def expand(self, layer: int, frontier: Int32Array) -> Int32Array:
        """Unvisited neighbours of `frontier` (`int32[B, F]`) on one layer, now visited: `int32[B, C]`.

        Under conditions only those that may be shown, and those behind the others (`Kernels.expand_through`).
        """
        csr = self._graph.layers[layer]
        if not self._all_linked:  # items that joined after the graph was built have no neighbours
            frontier = np.where(frontier < self._graph.item_count, frontier, np.int32(PADDING_ITEM))
        threads = self._threads(frontier, _EXPANDED_PER_THREAD)
        if self._conditions is None:
            return self._kernels.expand(csr.indptr, csr.neighbors, self._visited, frontier, threads)
        blocked, reach = self._conditions.blocked, self._conditions.reach(self._graph, layer)
        return self._kernels.expand_through(csr.indptr, csr.neighbors, self._visited, blocked, frontier, reach, threads)

    def score(self, candidates: Int32Array, ef: Int32Array) -> tuple[RowArray, BoolArray]:
        """One scorer call; then W of each user who has candidates becomes the ef best of W and candidates.

        Args:
            candidates: `int32[B, C]`, rows filled from the left and padded with -1; C >= 1.
            ef: `int32[B]`.

        Returns:
            `intp[A]`, the users who had candidates, and `bool[A, width]`, which members of their W are new.
        """
        counts = np.count_nonzero(candidates != PADDING_ITEM, axis=1)  # [B]
        rows = np.flatnonzero(counts)
        candidates = take_rows(candidates, rows)
        found = score_candidates(self._scorer, take_rows(self._user_states, rows), candidates)
        items, scores, is_new = self._kernels.merge_top(
            take_rows(self.items, rows),
            take_rows(self.scores, rows),
            candidates,
            found,
            take_rows(ef, rows),
            self._threads(candidates, _MERGED_PER_THREAD),
        )
        width = items.shape[1]
        self.items[rows, :width], self.items[rows, width:] = items, PADDING_ITEM
        self.scores[rows, :width], self.scores[rows, width:] = scores, PADDING_SCORE
        self._items_scored += counts
        self._rounds[rows] += 1
        new_members = np.zeros((len(rows), self.items.shape[1]), np.bool_)  # [A, width]
        new_members[:, :width] = is_new
        return rows, new_members

    def _threads(self, items: Int32Array, per_thread: int) -> int:
        return fitting_threads(items.size // per_thread)

    def truncate(self, users: BoolArray, ef: Int32Array) -> None:
        """Cuts W of these users (`bool[B]`) to their ef (`int32[B]`) best."""
        if not users.any():
            return
        beyond = users[:, None] & (np.arange(self.items.shape[1]) >= ef[:, None])  # [B, width]
        self.items[beyond] = PADDING_ITEM
        self.scores[beyond] = PADDING_SCORE

    def result(self, top_k: npt.NDArray[np.int64], width: int) -> SearchResult:
        """The top_k (`int64[B]`) best of each user's W, padded to `width`; all items match, as without conditions."""
        items, scores = fit(self.items, self.scores, top_k, width)
        return SearchResult(
            items, scores, self._items_scored, self._rounds, np.full(len(items), self._item_count, np.int64)
        )


def keep_rows(items: Int32Array, users: BoolArray) -> Int32Array:
    """`items` (`int32[B, X]`) with -1 in the rows of all but these users (`bool[B]`)."""
    return items if users.all() else np.where(users[:, None], items, np.int32(PADDING_ITEM))


def take_rows(array: npt.NDArray[Any], rows: RowArray) -> npt.NDArray[Any]:
    """These rows, ascending and distinct; the array itself, uncopied, if that is all of them."""
    return array if len(rows) == len(array) else array[rows]


def has_items(candidates: Int32Array) -> BoolArray:
    """Which rows of `int32[B, C]`, filled from the left, are not all padding; `bool[B]`. C may be 0."""
    filled: BoolArray = candidates[:, :1].max(axis=1, initial=PADDING_ITEM) != PADDING_ITEM
    return filled


def overlay(parts: Sequence[Int32Array]) -> Int32Array | None:
    """Merges candidates, `int32[B, any]` each and no user in two of them, into one array; None if there are none."""
    width = max((part.shape[1] for part in parts), default=0)
    if width == 0 or len(parts) == 1:
        return parts[0] if width else None
    merged = np.full((len(parts[0]), width), PADDING_ITEM, np.int32)
    for part in parts:
        np.maximum(merged[:, : part.shape[1]], part, out=merged[:, : part.shape[1]])
    return merged


def score_candidates(scorer: Scorer, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
    """Scores candidates (`int32[B, C]`, C-contiguous) for `float32[B, S]`; the checked `float32[B, C]`, C-contiguous.

    Raises:
        ScorerError: if the answer is not `float32[B, C]`, or the score of an item is NaN.
    """
    scores = scorer.score(user_states, candidates)
    if not isinstance(scores, np.ndarray) or scores.dtype != np.float32 or scores.shape != candidates.shape:
        came = f"{scores.dtype}{list(scores.shape)}" if isinstance(scores, np.ndarray) else type(scores).__name__
        raise ScorerError(
            f"the scorer returned {came}; expected a NumPy array float32{list(candidates.shape)}, one per candidate"
        )
    # The minimum is NaN if any score is NaN: this takes one pass and no temporary array.
    if np.isnan(scores.min(initial=0)) and (nan := np.isnan(scores) & (candidates != PADDING_ITEM)).any():
        raise ScorerError(
            f"the scorer returned NaN for {np.count_nonzero(nan)} of {nan.size} candidates, item {candidates[nan][0]} "
            "among them; expected numbers: check the model's weights and the user states"
        )
    return np.ascontiguousarray(scores)
