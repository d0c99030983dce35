"""Exhaustive search: scores every item for every user. Recall-all and coverage are measured with its results."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import numpy as np

from nann.errors import RequestError
from nann.kernels import NATIVE, Float32Array, Int32Array, Kernels
from nann.lockstep import score_candidates
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
    """Finds the exact top_k of each user; equal scores are ordered as in the other searches.

    Memory is that of one block of users times one chunk of items, for any B and N.

    Args:
        scorer: gives the score of each candidate for its user; larger is better.
        users: their states are passed to the scorer.
        item_count: N; items 0..N-1 are scored.
        top_k: how many items to return.
        chunk: how many items one call scores.
        user_block: for how many users one call scores them.
        progress: called after every scorer call with the scores computed so far and the total, B N.
        kernels: the inner loops.

    Raises:
        RequestError: if top_k, chunk or user_block is out of range.
        ScorerError: if the scorer's answer has the wrong shape or dtype, or holds NaN.
    """
    _require_sizes(item_count, top_k, chunk, user_block)
    items, scores = _empty(len(users), top_k)
    done = 0
    for start in range(0, len(users), user_block):
        block = slice(start, start + user_block)
        for first in range(0, item_count, chunk):
            chunk_items = np.arange(first, min(first + chunk, item_count), dtype=np.int32)
            best = (items[block], scores[block])
            items[block], scores[block] = _scan(scorer, users.states[block], chunk_items, best, kernels)
            done += len(best[0]) * len(chunk_items)
            if progress is not None:
                progress(done, len(users) * item_count)
    rounds = np.full(len(users), -(-item_count // chunk), np.int32)
    return SearchResult(items, finite(scores), np.full(len(users), item_count, np.int32), rounds)


def _require_sizes(item_count: int, top_k: int, chunk: int, user_block: int) -> None:
    if not isinstance(top_k, Integral) or not 1 <= top_k <= item_count:
        raise RequestError(f"top_k is {top_k}; expected a whole number from 1 to {item_count}, the number of items")
    if chunk < 1 or user_block < 1:
        raise RequestError(f"chunk is {chunk} and user_block {user_block}; expected at least 1")


def _empty(users: int, top_k: int) -> tuple[Int32Array, Float32Array]:
    return np.full((users, top_k), PADDING_ITEM, np.int32), np.full((users, top_k), PADDING_SCORE, np.float32)


def _scan(
    scorer: Scorer,
    user_states: Float32Array,
    items: Int32Array,
    best: tuple[Int32Array, Float32Array],
    kernels: Kernels,
) -> tuple[Int32Array, Float32Array]:
    """The best `int32[B, top_k]` and `float32[B, top_k]` after scoring `items` (`int32[chunk]`) too."""
    users, top_k = best[0].shape
    candidates = np.tile(items, (users, 1))  # [B, chunk]
    found = score_candidates(scorer, user_states, candidates)
    top_items, top_scores, _ = kernels.merge_top(*best, candidates, found, np.full(users, top_k, np.int32))
    return top_items, top_scores
