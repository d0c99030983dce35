"""Exhaustive search: scores every item for every user. Recall-all and coverage are measured with its results."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import numpy as np
import numpy.typing as npt

from nann.conditions import Conditions, packed
from nann.errors import RequestError
from nann.kernels import NATIVE, Float32Array, Int32Array, Kernels
from nann.lockstep import has_items, score_candidates
from nann.scorer import Scorer
from nann.search_input import UserBatch
from nann.search_result import SearchResult, finite
from nann.signature import PADDING_ITEM, PADDING_SCORE


def exact_search(
    scorer: Scorer,
    users: UserBatch,
    item_count: int,
    top_k: int,
    *,
    chunk: int = 8192,
    user_block: int = 32,
    progress: Callable[[int, int], None] | None = None,
    kernels: Kernels = NATIVE,
) -> SearchResult:
    """Finds the exact top_k of each user among the items that may be shown; equal scores are ordered as elsewhere.

    Memory is that of one block of users times one chunk of items, for any B and N.

    Args:
        scorer: gives the score of each candidate for its user; larger is better.
        users: their states are passed to the scorer; what is blocked is not scored.
        item_count: N; items 0..N-1 are scored.
        top_k: how many items to return.
        chunk: how many items one call scores.
        user_block: for how many users one call scores them.
        progress: called after every scorer call with the scores computed so far and the total, B N without conditions.
        kernels: the inner loops.

    Raises:
        RequestError: if top_k, chunk or user_block is out of range, or the users' blocked items are not of N items.
        ScorerError: if the scorer's answer has the wrong shape or dtype, or holds NaN.
    """
    _require_sizes(item_count, top_k, chunk, user_block)
    conditions = Conditions.of(users, item_count, kernels)
    matching = np.full(len(users), item_count, np.int64) if conditions is None else conditions.matching
    items, scores = _empty(len(users), top_k)
    rounds = np.zeros(len(users), np.int32)
    done, total = 0, int(matching.sum())
    for start in range(0, len(users), user_block):
        block = np.arange(start, min(start + user_block, len(users)))
        for first in range(0, item_count, chunk):
            chunk_items = np.arange(first, min(first + chunk, item_count), dtype=np.int32)
            rows, candidates = _candidates(chunk_items, block, conditions)
            if not len(rows):
                continue
            best = (items[rows], scores[rows])
            items[rows], scores[rows] = _scan(scorer, users.states[rows], candidates, best, kernels)
            rounds[rows] += 1
            done += int(np.count_nonzero(candidates != PADDING_ITEM))
            if progress is not None:
                progress(done, total)
    return SearchResult(items, finite(scores), matching.astype(np.int32), rounds, matching)


def _require_sizes(item_count: int, top_k: int, chunk: int, user_block: int) -> None:
    if not isinstance(top_k, Integral) or not 1 <= top_k <= item_count:
        raise RequestError(f"top_k is {top_k}; expected a whole number from 1 to {item_count}, the number of items")
    if chunk < 1 or user_block < 1:
        raise RequestError(f"chunk is {chunk} and user_block {user_block}; expected at least 1")


def _empty(users: int, top_k: int) -> tuple[Int32Array, Float32Array]:
    return np.full((users, top_k), PADDING_ITEM, np.int32), np.full((users, top_k), PADDING_SCORE, np.float32)


def _candidates(
    items: Int32Array, rows: npt.NDArray[np.intp], conditions: Conditions | None
) -> tuple[npt.NDArray[np.intp], Int32Array]:
    """Which items (`int32[chunk]`) these users may be shown: the users with any, `intp[A]`, and `int32[A, any]`."""
    candidates = np.tile(items, (len(rows), 1))  # [block, chunk]
    if conditions is None:
        return rows, candidates
    shown = packed(conditions[rows].split(candidates)[0])
    some = has_items(shown)
    return rows[some], np.ascontiguousarray(shown[some])


def _scan(
    scorer: Scorer,
    user_states: Float32Array,
    candidates: Int32Array,
    best: tuple[Int32Array, Float32Array],
    kernels: Kernels,
) -> tuple[Int32Array, Float32Array]:
    """The best `int32[B, top_k]` and `float32[B, top_k]` after scoring `candidates` (`int32[B, C]`) too."""
    users, top_k = best[0].shape
    found = score_candidates(scorer, user_states, candidates)
    top_items, top_scores, _ = kernels.merge_top(*best, candidates, found, np.full(users, top_k, np.int32))
    return top_items, top_scores
