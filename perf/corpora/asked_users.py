"""The test users of a corpus, and the quality of the answers that a server gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nann.bundle import Bundle
from nann.metrics import coverage
from nann.scorer import Int32Array, Scorer
from nann.signature import PADDING_ITEM

from ...training.data.prepared import PreparedData
from ...training.excluded import Excluded
from ...training.reports.store import cached_array
from ...training.scorers import OnnxScorer
from ...training.search.measured_users import MeasuredUsers, bundle_users, exact_top
from ..load.perf_analyzer import Answer
from ..load.requests import unpadded
from .offline import OfflineUsers
from .table1 import Corpus


@dataclass(frozen=True)
class AskedUsers:
    """Test users of the bundle that answers, with the exhaustive top K and the targets of each."""

    bundle: Bundle
    users: MeasuredUsers

    @cached_property
    def histories(self) -> list[list[Any]]:
        """External ids, oldest first, without padding; never empty."""
        return unpadded(self.users.queries.external_ids)

    @cached_property
    def row_of(self) -> dict[tuple[Any, ...], int]:
        """History -> row of the user."""
        return {tuple(history): row for row, history in enumerate(self.histories)}

    def offline(self, scorer: Scorer) -> OfflineUsers:
        """The same users, for searches in this process."""
        return OfflineUsers(self.bundle, scorer, scorer, self.users.queries, self.users.batch)

    def quality(self, answers: Sequence[Answer]) -> dict[str, float]:
        """recall, recall_all (of the exhaustive top K) and coverage over the users who were answered, each once."""
        found = {self.row_of[answer.behavior_item_ids]: answer.item_ids for answer in answers}
        rows, kind = np.array(sorted(found), np.intp), self.bundle.id_kind
        items = np.full((len(rows), self.users.top_k), PADDING_ITEM, np.int32)
        for place, row in enumerate(rows):
            indices = self.bundle.features.item_indices(kind.row(found[row])[0])[: items.shape[1]]
            items[place, : len(indices)] = indices
        users = self.users.take(rows)
        return {
            "recall": users.recall(items),
            "recall_all": users.recall(users.exact),
            "coverage": coverage(items, users.exact),
            "users": float(len(rows)),
        }


def asked_users(corpus: Corpus, users: int, cache: Path) -> AskedUsers:
    """The first `users` test users of a corpus; their exhaustive top K is computed once and kept in `cache`."""
    bundle = Bundle.open(corpus.bundle, files=[])
    queries, batch = bundle_users(bundle, PreparedData.load(corpus.data), "test", users, threads=1)
    top_k = bundle.search_params.top_k
    path = cache / "exact" / f"{bundle.bundle_id}-{len(batch)}-users-top-{top_k}.npy"

    def compute() -> Int32Array:
        scorer = OnnxScorer.of_bundle(bundle)
        return exact_top(scorer, batch, bundle.item_count, top_k, Excluded.of(queries))

    return AskedUsers(bundle, MeasuredUsers(batch, queries, cached_array(path, compute)))
