"""The only interface between search and model: scores of candidates for users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nann.errors import ScorerError
from nann.signature import PADDING_ITEM

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
Block = tuple[slice, slice]
"""Rows and columns of a part of `[B, C]`: users and candidates."""
EachBlock = Callable[[Callable[[Block], None], Iterable[Block]], None]
"""Calls a function with every block and raises its errors: `one_by_one`, or several threads that share the blocks."""


class Scorer(Protocol):
    """s_u(e_v) of the paper, for a batch of users at once.

    Offline evaluation, the oracle and the server differ only in which Scorer they hold: torch, onnxruntime, or a BLS
    call to the model `scorer`.
    """

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """Scores every candidate of every user.

        Args:
            user_states: `float32[B, S]`, one row per user, from the user encoder.
            candidates: `int32[B, C]` item indices, -1 = padding.

        Returns:
            `float32[B, C]`; larger is better. Scores at padded positions are ignored.
        """


def pair_blocks(users: int, candidates: int, pairs: int) -> Iterator[Block]:
    """Cuts `users x candidates` into blocks of about `pairs` pairs or fewer: whole users, or equal parts of one user.

    A score depends only on its pair (docs/custom_scorer.md), so the cuts do not change it.
    """
    if users * candidates <= pairs:
        yield slice(users), slice(candidates)
        return
    rows = max(1, pairs // candidates)
    columns = ceil(candidates / ceil(candidates / pairs))
    for row in range(0, users, rows):
        for column in range(0, candidates, columns):
            yield slice(row, row + rows), slice(column, column + columns)


def one_by_one(function: Callable[[Block], None], blocks: Iterable[Block]) -> None:
    """The `EachBlock` of one thread."""
    for block in blocks:
        function(block)


def shared_by(threads: int) -> EachBlock:
    """Runs the blocks of a call on several threads: the caller and helpers, each taking one block after the other."""
    if threads == 1:
        return one_by_one
    helpers = ThreadPoolExecutor(threads - 1, "blocks")

    def each_block(function: Callable[[Block], None], blocks: Iterable[Block]) -> None:
        waiting = list(blocks)
        left = iter(waiting)  # a list's iterator, unlike a generator, may be used by several threads

        def work() -> None:
            one_by_one(function, left)

        helping = [helpers.submit(work) for _ in range(min(threads, len(waiting)) - 1)]
        work()
        for helper in helping:
            helper.result()

    return each_block


def score_in_blocks(
    score: Callable[[Float32Array, npt.NDArray[Any]], Float32Array],
    user_states: Float32Array,
    candidates: npt.NDArray[Any],
    pairs: int,
    each_block: EachBlock = one_by_one,
) -> Float32Array:
    """Scores about `pairs` pairs at a time, without the columns at the end of a block that hold only padding.

    Users of a batch have different numbers of candidates, so blocks often end in such columns.

    Args:
        score: scores one block, as `Scorer.score` does.
        user_states: `float32[B, S]`.
        candidates: `int32[B, C]`, rows filled from the left, -1 = padding. Or their rows, `float32[B, C, R]`, in which
            padding can't be told from an item.
        pairs: about how many (user, candidate) pairs make a block.
        each_block: runs the blocks; if it uses threads, `score` must be thread-safe.

    Returns:
        `float32[B, C]`; 0 where a block ended in padding.

    Raises:
        ScorerError: if a block's scores have another shape.
    """
    users, width = candidates.shape[:2]
    scores = np.zeros((users, width), np.float32)
    if candidates.ndim == 2:
        used = candidates != PADDING_ITEM
        # Where the padding at the end of each row begins.
        ends = np.where(used.any(axis=1), width - used[:, ::-1].argmax(axis=1), 0)
    else:
        ends = np.full(users, width)

    def score_block(block: Block) -> None:
        rows, columns = block
        part = (rows, slice(columns.start, min(columns.stop, int(ends[rows].max(initial=0)))))
        items = candidates[part]
        if items.size:
            found = score(user_states[rows], items)
            if found.shape != items.shape[:2]:  # assigning it might broadcast it
                raise ScorerError(f"the scorer returned shape {list(found.shape)}; expected {list(items.shape[:2])}")
            scores[part] = found

    each_block(score_block, pair_blocks(users, width, pairs))
    return scores
