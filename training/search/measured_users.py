"""Users whose exact results are known, and the metrics of a search for them (paper, section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from nann.beam_search import beam_search
from nann.bundle import USER_ENCODER_FILE, Bundle
from nann.errors import DataError
from nann.exact_search import exact_search
from nann.metrics import coverage, recall, recall_delta, share_scored, targets_found
from nann.scorer import Int32Array, Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult
from nann.signature import PADDING_ITEM

from ..data.prepared import PreparedData, Queries
from ..excluded import Excluded
from ..scorers import OnnxUserEncoder

USER_BLOCK = 64
"""Users per batch, when they are encoded and when they are searched for."""


@dataclass(frozen=True, eq=False)
class MeasuredUsers:
    """U users with their exact top K under a scorer and their ground truth items.

    Attributes:
        batch: the users as a search takes them.
        queries: the same users with their ground truth items.
        exact: `int32[U, K]`, the K best of all items that are not excluded, best first: B_u of the paper.
    """

    batch: UserBatch
    queries: Queries
    exact: Int32Array

    @classmethod
    def of(cls, scorer: Scorer, batch: UserBatch, queries: Queries, item_count: int, top_k: int) -> MeasuredUsers:
        """Scores every item for these users."""
        return cls(batch, queries, exact_top(scorer, batch, item_count, top_k, Excluded.of(queries)))

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def excluded(self) -> Excluded:
        """The items that no list of these users has."""
        return Excluded.of(self.queries)

    @property
    def top_k(self) -> int:
        """K."""
        return self.exact.shape[1]

    def cut(self, top_k: int) -> MeasuredUsers:
        """The same users with a smaller K."""
        return replace(self, exact=self.exact[:, :top_k])

    def take(self, rows: npt.NDArray[np.intp]) -> MeasuredUsers:
        """The users in these rows, `intp[R]`."""
        return MeasuredUsers(self.batch[rows], self.queries.take(rows), self.exact[rows])

    def recall(self, items: Int32Array) -> float:
        """Share of a user's ground truth items that are in `items`, `int32[U, any]`; mean over the users."""
        return recall(items, self.queries.target_indptr, self.queries.target_items)

    @cached_property
    def recall_all(self) -> float:
        """The recall of scoring every item."""
        return self.recall(self.exact)

    def recall_delta(self, items: Int32Array) -> float | None:
        """The share of `recall_all` that lists, `int32[U, any]`, lose; None if `recall_all` is 0: JSON has no NaN."""
        return recall_delta(self.recall_all, self.recall(items)) if self.recall_all else None

    def recall_error(self, coverage: float) -> float:
        """Standard error of `recall_delta` for a search that misses targets as often as other items of the exact list.

        The difference that is seen may be smaller by chance, down to 0. The error is 0 only if nothing is missed.
        """
        found, _ = self.targets
        return float(np.sqrt(coverage * (1 - coverage) / max(found, 1)))

    @cached_property
    def targets(self) -> tuple[int, int]:
        """How many of the ground truth items scoring every item finds, on which recall-Delta rests; and of how many."""
        found = targets_found(self.exact, self.queries.target_indptr, self.queries.target_items)
        return int(found.sum()), len(found)

    def point(self, items: Int32Array, evaluations: float) -> dict[str, Any]:
        """One point of a curve: recall and coverage of `items`, `int32[U, any]`, and scorer evaluations per user."""
        quality = {"recall": self.recall(items), "coverage": coverage(items, self.exact)}
        return {"evaluations": float(evaluations), **quality}

    def measures(self, found: SearchResult, item_count: int) -> dict[str, float | None]:
        """The metrics of section 5.2 as fractions, and `items_scored`, the mean number per user."""
        return {
            "recall_all": self.recall_all,
            "recall_retrieval": self.recall(found.items),
            "recall_delta": self.recall_delta(found.items),
            "coverage": coverage(found.items, self.exact),
            "share_scored": share_scored(found.items_scored, item_count),
            "items_scored": float(found.items_scored.mean()),
        }

    def measure(self, index: SearchIndex, scorer: Scorer, params: SearchParams) -> dict[str, Any]:
        """The `measures` of a search for these users."""
        return self.measures(self.search(index, scorer, params), index.item_count)

    def walk(self, index: SearchIndex, scorer: Scorer, params: SearchParams) -> dict[str, Any]:
        """The `point` of a search for these users."""
        found = self.search(index, scorer, params)
        return self.point(found.items, found.items_scored.mean())

    def search(self, index: SearchIndex, scorer: Scorer, params: SearchParams) -> SearchResult:
        """`search_users` for these users."""
        return search_users(index, scorer, self.batch, params, self.excluded)


def search_users(
    index: SearchIndex,
    scorer: Scorer,
    users: UserBatch,
    params: SearchParams,
    excluded: Excluded | None = None,
    block: int = USER_BLOCK,
) -> SearchResult:
    """`beam_search` for many users, in batches of `block` users; the lists are without `excluded` items."""
    left_out = Excluded.none(len(users)) if excluded is None else excluded
    found = []
    for rows in (slice(start, start + block) for start in range(0, len(users), block)):
        wide = beam_search(index, scorer, users[rows], left_out[rows].widened(params))
        found.append(left_out[rows].without_in(wide, params.top_k))
    return SearchResult.concatenate(found)


def exact_top(scorer: Scorer, users: UserBatch, item_count: int, top_k: int, excluded: Excluded) -> Int32Array:
    """`exact_search` without `excluded` items and with a progress bar: `int32[U, top_k]`, best first, -1 = padding."""
    most = min(top_k + excluded.most, item_count)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("scoring every item", total=None)
        found = exact_search(
            scorer,
            users,
            item_count,
            most,
            user_block=4,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    return excluded.without(found.items, top_k)


def bundle_users(
    bundle: Bundle, data: PreparedData, split: str, users: int | None, threads: int = 0
) -> tuple[Queries, UserBatch]:
    """The first `users` of a split (None: all), encoded by the bundle's user encoder; threads 0: all cores.

    If the bundle's items changed after the training (`nann refresh`), they are as the bundle numbers them: what it does
    not have is neither ground truth nor history, and users who took nothing else afterwards are left out.

    Raises:
        DataError: if none is left.
    """
    queries = data.queries(split, bundle.sequence_length, users)
    own = queries
    if bundle.features.behavior_ids is not None:
        queries, own = _of_other_items(bundle, queries)
    encoder = OnnxUserEncoder(bundle.path / USER_ENCODER_FILE, threads)
    # A model without user profiles gets none, even if the data set has them.
    codes = queries.profiles.astype(np.int64) if bundle.features.profile_sizes else None
    profiles = bundle.features.profile(codes, len(queries.behaviors))
    blocks = [slice(i, i + USER_BLOCK) for i in range(0, len(profiles), USER_BLOCK)]
    states = [encoder.encode(queries.behaviors[some], profiles[some]) for some in blocks]
    return own, UserBatch(np.concatenate(states), own.behaviors)


def _of_other_items(bundle: Bundle, queries: Queries) -> tuple[Queries, Queries]:
    """The queries whose ground truth the bundle has some of, in the numbers of the user encoder and of the bundle."""

    def kept(indptr: npt.NDArray[np.int64], items: Int32Array) -> tuple[npt.NDArray[np.int64], Int32Array]:
        own = bundle.features.own_items(items)
        there = own != PADDING_ITEM
        counts = np.bincount(np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))[there], minlength=len(indptr) - 1)
        return np.append(0, np.cumsum(counts)), own[there]

    target_indptr, target_items = kept(queries.target_indptr, queries.target_items)
    excluded_indptr, excluded_items = kept(queries.excluded_indptr, queries.excluded_items)
    rows = np.flatnonzero(np.diff(target_indptr))
    if not len(rows):
        raise DataError(
            f"{bundle.path} has none of the items that the {len(queries.users)} users took: `nann refresh` removed "
            "them; measure the bundle that it was given"
        )
    own = replace(
        queries,
        behaviors=bundle.features.own_items(queries.behaviors),
        target_indptr=target_indptr,
        target_items=target_items,
        excluded_indptr=excluded_indptr,
        excluded_items=excluded_items,
    )
    return queries.take(rows), own.take(rows)
