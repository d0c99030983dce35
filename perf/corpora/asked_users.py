"""The test users of a corpus, and how good the answers are that a server gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nann.bundle import SCORER_FILE, Bundle
from nann.metrics import coverage
from nann.scorer import Int32Array, Scorer
from nann.signature import PADDING_IDS, PADDING_ITEM

from ...training.data.prepared import PreparedData
from ...training.reports.store import cached_array
from ...training.scorers import OnnxScorer
from ...training.search.measured_users import MeasuredUsers, bundle_users, exact_top
from ..load.perf_analyzer import Answer
from .offline import OfflineUsers


@dataclass(frozen=True)
class AskedUsers:
    """Test users, with the exhaustive top K of each.

    Attributes:
        bundle: the bundle that answers.
        users: histories and what answers are measured by.
    """

    bundle: Bundle
    users: MeasuredUsers

    @cached_property
    def histories(self) -> list[list[int]]:
        """External ids, oldest first, without padding; never empty."""
        rows = self.users.queries.external_ids.tolist()
        return [[item for item in row if item not in PADDING_IDS] or [0] for row in rows]

    def offline(self, scorer: Scorer) -> OfflineUsers:
        """The same users, for searches in this process."""
        return OfflineUsers(self.bundle, scorer, self.users.queries, self.users.batch)

    def quality(self, answers: Sequence[Answer]) -> dict[str, float]:
        """recall, that of the exhaustive top K beside it (recall_all), and coverage, over the users who were answered.

        A user counts once, however often the load asked for them.
        """
        by_history = {tuple(history): row for row, history in enumerate(self.histories)}
        found = {by_history[answer.behavior_item_ids]: answer.item_ids for answer in answers}
        rows = np.array(sorted(found), np.intp)
        items = np.full((len(rows), self.users.top_k), PADDING_ITEM, np.int32)
        for place, row in enumerate(rows):
            indices = self.bundle.features.item_indices(np.array(found[row], np.int64))[: items.shape[1]]
            items[place, : len(indices)] = indices
        users = self.users.take(rows)
        return {
            "recall": users.recall(items),
            "recall_all": users.recall(users.exact),
            "coverage": coverage(items, users.exact),
            "users": float(len(rows)),
        }


def asked_users(bundle_folder: Path, data_folder: Path, users: int, cache: Path) -> AskedUsers:
    """The first test users of a data set; their exhaustive top K is computed once and kept in `cache`."""
    bundle = Bundle.open(bundle_folder, files=[])
    queries, batch = bundle_users(bundle, PreparedData.load(data_folder), "test", users, threads=1)
    top_k = bundle.search_params.top_k
    path = cache / "exact" / f"{bundle.bundle_id}-{len(batch)}-users-top-{top_k}.npy"

    def compute() -> Int32Array:
        return exact_top(OnnxScorer(bundle.path / SCORER_FILE), batch, bundle.item_count, top_k)

    return AskedUsers(bundle, MeasuredUsers(batch, queries, cached_array(path, compute)))
