"""The test users of a corpus, and how good the answers are that a server gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nann.bundle import SCORER_FILE, USER_ENCODER_FILE, Bundle
from nann.metrics import coverage, recall
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import UserBatch
from nann.signature import PADDING_IDS, PADDING_ITEM

from ...training.data.prepared import PreparedData, Queries
from ...training.reports.store import cached_array
from ...training.scorers import OnnxScorer, OnnxUserEncoder
from ...training.search.evaluate import encode_queries, exact_top
from ..load.perf_analyzer import Answer
from .offline import OfflineUsers


@dataclass(frozen=True)
class AskedUsers:
    """Test users, with the exhaustive top K of each.

    Attributes:
        bundle: the bundle that answers.
        queries: histories and ground truth.
        states: `float32[Q, S]`.
        exact: `int32[Q, K]`, best first.
    """

    bundle: Bundle
    queries: Queries
    states: Float32Array
    exact: Int32Array

    @cached_property
    def histories(self) -> list[list[int]]:
        """External ids, oldest first, without padding; never empty."""
        rows = self.queries.external_ids.tolist()
        return [[item for item in row if item not in PADDING_IDS] or [0] for row in rows]

    def offline(self, scorer: Scorer) -> OfflineUsers:
        """The same users, for searches in this process."""
        return OfflineUsers(self.bundle, scorer, self.queries, self.states)

    def quality(self, answers: Sequence[Answer]) -> dict[str, float]:
        """recall, that of the exhaustive top K beside it (recall_all), and coverage, over the users who were answered.

        A user counts once, however often the load asked for them.
        """
        by_history = {tuple(history): row for row, history in enumerate(self.histories)}
        found = {by_history[answer.behavior_item_ids]: answer.item_ids for answer in answers}
        rows = np.array(sorted(found), np.intp)
        items = np.full((len(rows), self.exact.shape[1]), PADDING_ITEM, np.int32)
        for place, row in enumerate(rows):
            indices = self.bundle.features.item_indices(np.array(found[row], np.int64))[: items.shape[1]]
            items[place, : len(indices)] = indices
        targets = [self.queries.targets_of(row) for row in rows]
        indptr = np.cumsum([0, *map(len, targets)])
        truth = np.concatenate(targets)
        return {
            "recall": recall(items, indptr, truth),
            "recall_all": recall(self.exact[rows], indptr, truth),
            "coverage": coverage(items, self.exact[rows]),
            "users": float(len(rows)),
        }


def asked_users(bundle_folder: Path, data_folder: Path, users: int, cache: Path) -> AskedUsers:
    """The first test users of a data set; their exhaustive top K is computed once and kept in `cache`."""
    bundle = Bundle.open(bundle_folder, files=[])
    queries = PreparedData.load(data_folder).queries("test", bundle.sequence_length, users)
    states = encode_queries(OnnxUserEncoder(bundle.path / USER_ENCODER_FILE, threads=1), bundle, queries)
    top_k = bundle.search_params.top_k
    path = cache / "exact" / f"{bundle.bundle_id}-{len(states)}-users-top-{top_k}.npy"

    def compute() -> Int32Array:
        users = UserBatch(states, queries.behaviors)
        return exact_top(OnnxScorer(bundle.path / SCORER_FILE), users, bundle.item_count, top_k).items

    return AskedUsers(bundle, queries, states, cached_array(path, compute))
