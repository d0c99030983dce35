"""Users to measure searches with, and the metrics of what a search gives them (paper, section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from nann.beam_search import beam_search
from nann.bundle import USER_ENCODER_FILE, Bundle
from nann.exact_search import exact_search
from nann.metrics import coverage, recall, recall_delta, share_scored
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult

from ..data.prepared import PreparedData, Queries
from ..scorers import OnnxUserEncoder

USER_BLOCK = 64
"""Users who are encoded, and who walk, together."""


@dataclass(frozen=True, eq=False)
class MeasuredUsers:
    """U users whose exact top K under a scorer is known, and what they did next.

    Attributes:
        batch: what searches are given of them.
        queries: the same users with their targets.
        exact: `int32[U, K]`, the K best of all items, best first: B_u of the paper.
    """

    batch: UserBatch
    queries: Queries
    exact: Int32Array

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def top_k(self) -> int:
        """K."""
        return self.exact.shape[1]

    def cut(self, top_k: int) -> MeasuredUsers:
        """The same users with a smaller K."""
        return replace(self, exact=self.exact[:, :top_k])

    def take(self, rows: npt.NDArray[np.intp]) -> MeasuredUsers:
        """Some of the users, by `intp[R]` rows."""
        return MeasuredUsers(self.batch[rows], self.queries.take(rows), self.exact[rows])

    def recall(self, items: Int32Array) -> float:
        """Share of a user's targets among `items`, `int32[U, any]`; mean over the users."""
        return recall(items, self.queries.target_indptr, self.queries.target_items)

    def point(self, items: Int32Array, evaluations: float) -> dict[str, Any]:
        """One point of a curve: what `items` (`int32[U, any]`) are worth, and how many scores a user they took."""
        quality = {"recall": self.recall(items), "coverage": coverage(items, self.exact)}
        return {"evaluations": float(evaluations), **quality}

    def measures(self, found: SearchResult, item_count: int) -> dict[str, float | None]:
        """The metrics of section 5.2 as fractions, and `items_scored`, a mean count a user.

        `recall_delta` is None where `recall_all` is 0, since JSON has no NaN.
        """
        recall_all, recall_retrieval = self.recall(self.exact), self.recall(found.items)
        return {
            "recall_all": recall_all,
            "recall_retrieval": recall_retrieval,
            "recall_delta": recall_delta(recall_all, recall_retrieval) if recall_all else None,
            "coverage": coverage(found.items, self.exact),
            "share_scored": share_scored(found.items_scored, item_count),
            "items_scored": float(found.items_scored.mean()),
        }

    def measure(self, index: SearchIndex, scorer: Scorer, params: SearchParams) -> dict[str, Any]:
        """The `measures` of a search for these users."""
        return self.measures(search_users(index, scorer, self.batch, params), index.item_count)

    def walk(self, index: SearchIndex, scorer: Scorer, params: SearchParams) -> dict[str, Any]:
        """The `point` of a search for these users."""
        found = search_users(index, scorer, self.batch, params)
        return self.point(found.items, found.items_scored.mean())


def search_users(
    index: SearchIndex, scorer: Scorer, users: UserBatch, params: SearchParams, block: int = USER_BLOCK
) -> SearchResult:
    """`beam_search` for many users, a block at a time."""
    starts = range(0, len(users), block)
    return SearchResult.concatenate([beam_search(index, scorer, users[i : i + block], params) for i in starts])


def exact_top(scorer: Scorer, users: UserBatch, item_count: int, top_k: int) -> Int32Array:
    """`exact_search` with a progress bar: `int32[U, top_k]`, best first."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("scoring every item", total=None)
        return exact_search(
            scorer,
            users,
            item_count,
            top_k,
            user_block=4,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        ).items


def bundle_users(
    bundle: Bundle, data: PreparedData, split: str, users: int | None, threads: int = 0
) -> tuple[Queries, UserBatch]:
    """The first users of a split (None: all), encoded by the bundle's user encoder with so many threads."""
    queries = data.queries(split, bundle.sequence_length, users)
    encoder = OnnxUserEncoder(bundle.path / USER_ENCODER_FILE, threads)
    return queries, UserBatch(encode_queries(encoder, bundle, queries), queries.behaviors)


def encode_queries(encoder: OnnxUserEncoder, bundle: Bundle, queries: Queries) -> Float32Array:
    """User states of all queries, a block at a time: `float32[Q, S]`."""
    # As the server does it: a model without a profile gets none, even where the data set has one.
    profiles = bundle.features.profile(queries.profiles.astype(np.int64), len(queries.behaviors))
    blocks = [slice(i, i + USER_BLOCK) for i in range(0, len(profiles), USER_BLOCK)]
    return np.concatenate([encoder.encode(queries.behaviors[some], profiles[some]) for some in blocks])
