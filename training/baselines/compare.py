"""Lists of items for the same users, measured by what these did next."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nann.errors import ConfigError
from nann.metrics import ndcg, recall
from nann.scorer import Int32Array
from nann.signature import PADDING_ITEM

from ..data.prepared import PreparedData, Queries
from .als import Als
from .baseline import Baseline
from .item_knn import ItemKnn
from .plain import OwnItems, Popular

BASELINES: dict[str, type[Baseline]] = {"popular": Popular, "own_items": OwnItems, "item_knn": ItemKnn, "als": Als}
CHEAP = ("popular", "own_items", "item_knn")
"""Those that need no package of their own."""
LABELS = {
    "popular": "most popular",
    "own_items": "own items, then popular",
    "item_knn": "item-kNN",
    "als": "ALS",
    "deep": "deep model, every item scored",
    "light": "its light head alone, every item scored",
}


@dataclass(frozen=True)
class Comparison:
    """Users, what is known of them and what they did next; lists are measured against it.

    Attributes:
        data: the data set, for the baselines to learn from.
        queries: the users.
        top_ks: the K of the metrics.
        excluded: for each user the items that no list shall have, `int32[any]`, distinct.

    Raises:
        ConfigError: if a K is below 1.
    """

    data: PreparedData
    queries: Queries
    top_ks: Sequence[int]
    excluded: Sequence[Int32Array]

    def __post_init__(self) -> None:
        if min(self.top_ks, default=0) < 1:
            raise ConfigError(f"top_k is {list(self.top_ks)}; expected one or more numbers of at least 1")

    @classmethod
    def of(
        cls, data: PreparedData, queries: Queries, top_ks: Sequence[int], *, exclude_history: bool = False
    ) -> Comparison:
        """The comparison for some users; `exclude_history` keeps all items that a user met before out of the lists."""
        first = data.user_first[queries.users]
        end = data.user_known_end[queries.users] if exclude_history else first
        excluded = [np.unique(data.behavior_items[one:other]) for one, other in zip(first, end, strict=True)]
        return cls(data, queries, top_ks, excluded)

    def baseline(self, name: str) -> dict[str, float]:
        """Fits and measures one of BASELINES; see `measure`."""
        return self.measure(lambda count: BASELINES[name].fit(self.data).rank(self.queries.behaviors, count))

    def best_cheap(self) -> tuple[str, float]:
        """The name of the cheap baseline with the best recall at the largest K, and its recall."""
        of = {name: self.baseline(name)[f"recall_{max(self.top_ks)}"] for name in CHEAP}
        best = max(of, key=lambda name: of[name])
        return best, of[best]

    def measure(self, ranked: Callable[[int], Int32Array]) -> dict[str, float]:
        """`recall_K` and `ndcg_K` for each K, and `seconds`.

        `ranked` gives so many items for each user, best first, `int32[U, any]`; excluded ones are taken out here.
        """
        start = time.perf_counter()
        count = min(max(self.top_ks) + max(map(len, self.excluded)), self.data.item_count)
        items = without(ranked(count), self.excluded)
        seconds = time.perf_counter() - start
        truth = self.queries.target_indptr, self.queries.target_items
        metrics = {"recall": recall, "ndcg": ndcg}
        measured = {f"{name}_{k}": of(items[:, :k], *truth) for name, of in metrics.items() for k in self.top_ks}
        return {**measured, "seconds": round(seconds, 2)}


def without(items: Int32Array, excluded: Sequence[Int32Array]) -> Int32Array:
    """Lists, `int32[U, M]`, without each user's excluded items, `int32[any]`; padded with -1 to the same shape."""
    out = np.full_like(items, PADDING_ITEM)
    for row, listed, left_out in zip(out, items, excluded, strict=True):
        kept = listed[~np.isin(listed, left_out)]
        row[: len(kept)] = kept
    return out
