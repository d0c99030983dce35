"""The requests that `nann demo` sends to its server, and the comparison of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nann.bundle import Bundle

    from ..clients import RetrievalClient, RetrievalResult
    from ..training.data.prepared import PreparedData, Queries

WARM_UP_REQUESTS = 20
TIE_TOLERANCE = 1e-4
"""Scores of two engines that differ by less count as equal."""


def ask_one_by_one(client: RetrievalClient, histories: npt.NDArray[np.int64]) -> list[RetrievalResult]:
    """Sends one request per user, after a few to warm up; `histories` is `int64[Q, L]` external ids, padded with 0."""
    for history in histories[:WARM_UP_REQUESTS]:
        client.retrieve(history)
    return [client.retrieve(history) for history in histories]


def stacked(answers: list[RetrievalResult]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Answers of single users as `int64[Q, K]` external ids and `float32[Q, K]` scores."""
    return np.concatenate([a.item_ids for a in answers]), np.concatenate([a.scores for a in answers])


def offline_answers(
    data: PreparedData, bundle: Bundle, checkpoint: Path, queries: Queries
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The answers of the same search in this process, with the torch scorer, in the form of `stacked`."""
    from nann.search_input import UserBatch

    from ..training.checkpoint import Checkpoint
    from ..training.export.serving_modules import serving_modules
    from ..training.scorers import TorchScorer, encode_users_torch
    from ..training.search.measured_users import search_users

    user_encoder, scorer = serving_modules(Checkpoint.load(checkpoint).restore(data))
    states = encode_users_torch(user_encoder, queries.behaviors, queries.profiles)
    users = UserBatch(states, queries.behaviors)
    found = search_users(bundle.index, TorchScorer(scorer), users, bundle.search_params)
    return bundle.external_ids(found.items), found.scores


def same_items(
    ids: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    other_ids: npt.NDArray[np.int64],
    other_scores: npt.NDArray[np.float32],
) -> npt.NDArray[np.bool_]:
    """Which users got the same items: `bool[Q]`.

    An item that only one side has is accepted if its score ties with the last place of the other side.
    """
    return np.array(
        [
            _ties(a[~np.isin(a, b)], sa[~np.isin(a, b)], sb) and _ties(b[~np.isin(b, a)], sb[~np.isin(b, a)], sa)
            for a, sa, b, sb in zip(ids, scores, other_ids, other_scores, strict=True)
        ]
    )


def _ties(extra: npt.NDArray[np.int64], extra_scores: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    return len(extra) == 0 or bool(np.all(np.abs(extra_scores - other[-1]) <= TIE_TOLERANCE))
