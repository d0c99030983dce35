"""What every search returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.signature import PADDING_ITEM, PADDING_SCORE

_LEAST, _LARGEST = (np.float32(limit) for limit in (np.finfo(np.float32).min, np.finfo(np.float32).max))


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The best items of B users, and the cost of finding them.

    Attributes:
        items: `int32[B, K]` item indices, best first, equal scores by smaller index; padded with -1. K is the largest
            top_k of the batch.
        scores: `float32[B, K]`, all finite, padded with `PADDING_SCORE` of `nann.signature`.
        items_scored: `int32[B]`, how many candidates the scorer evaluated for each user.
        rounds: `int32[B]`, how many scorer calls each user took part in, with the one for the entry points. The search
            made as many calls as the largest of these.
        items_matching: `int64[B]`, how many items the user may be shown: N, less the blocked ones. There are never
            fewer results than the smaller of this and top_k, unless a `stop` ended the search.
        finished: `bool[B]`, False where a `stop` ended the search before its last round; None: it had none.
    """

    items: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    items_scored: npt.NDArray[np.int32]
    rounds: npt.NDArray[np.int32]
    items_matching: npt.NDArray[np.int64]
    finished: npt.NDArray[np.bool_] | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[SearchResult]) -> SearchResult:
        """Results of the same width for several batches, which nothing could stop, as one; at least one."""
        arrays = ((part.items, part.scores, part.items_scored, part.rounds, part.items_matching) for part in parts)
        return cls(*(np.concatenate(each) for each in zip(*arrays, strict=True)))


def fit(
    items: npt.NDArray[np.int32], scores: npt.NDArray[np.float32], top_k: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Cuts or pads sorted results to each user's top_k.

    Args:
        items: `int32[B, R]`, best first, padded with -1.
        scores: `float32[B, R]`.
        top_k: `int64[B]`.
        width: K, at least max(top_k).

    Returns:
        `int32[B, K]` and `float32[B, K]`, padded with -1 and `PADDING_SCORE`; the scores are `finite`.
    """
    if items.shape[1] == width and (top_k >= width).all():
        return items, finite(scores)
    out_items = np.full((len(items), width), PADDING_ITEM, np.int32)
    out_scores = np.full((len(items), width), PADDING_SCORE, np.float32)
    shared = min(width, items.shape[1])
    wanted = np.arange(shared) < top_k[:, None]  # [B, shared]
    out_items[:, :shared] = np.where(wanted, items[:, :shared], PADDING_ITEM)
    out_scores[:, :shared] = np.where(wanted, scores[:, :shared], PADDING_SCORE)
    return out_items, finite(out_scores)


def finite(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores with the least or the largest float32 in place of infinity: a scorer may mask items with it."""
    return np.minimum(np.maximum(scores, _LEAST), _LARGEST)  # np.clip takes several times as long for few
