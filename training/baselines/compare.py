"""Lists of items for the same users, measured by what these did next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nann.errors import ConfigError
from nann.metrics import ndcg, recall
from nann.scorer import Int32Array

from ..data.prepared import PreparedData, Queries
from ..excluded import Excluded
from .als import Als
from .baseline import Baseline
from .by_frequency import recall_by_frequency
from .item_knn import ItemKnn
from .plain import OwnItems, Popular

Measures = dict[str, Any]
"""A method's `recall_K`, `ndcg_K`, `by_frequency` and `seconds`."""
BASELINES: dict[str, type[Baseline]] = {"popular": Popular, "own_items": OwnItems, "item_knn": ItemKnn, "als": Als}
LABELS = {
    "popular": "most popular",
    "own_items": "own items",
    "item_knn": "item-kNN",
    "als": "ALS",
    "deep": "deep model",
    "light": "its light head alone",
}


@dataclass(frozen=True)
class Comparison:
    """Users, what is known of them and what they did next; lists are measured against it.

    Attributes:
        data: the data set, for the baselines to learn from.
        queries: the users; their excluded items are in no list.
        top_ks: the K of the metrics.

    Raises:
        ConfigError: if a K is below 1.
    """

    data: PreparedData
    queries: Queries
    top_ks: Sequence[int]

    def __post_init__(self) -> None:
        if min(self.top_ks, default=0) < 1:
            raise ConfigError(f"top_k is {list(self.top_ks)}; expected one or more numbers of at least 1")

    def baseline(self, name: str) -> Measures:
        """Fits and measures one of BASELINES; see `measure`."""
        return self.measure(lambda count: BASELINES[name].fit(self.data).rank(self.queries.behaviors, count))

    def measure(self, ranked: Callable[[int], Int32Array]) -> Measures:
        """The measures of one method.

        `ranked` gives so many items for each user, best first, `int32[U, any]`; excluded ones are taken out here.
        `by_frequency` is the recall at the largest K in each class of `by_frequency.CLASSES`.
        """
        start = time.perf_counter()
        excluded, most = Excluded.of(self.queries), max(self.top_ks)
        items = excluded.without(ranked(min(most + excluded.most, self.data.item_count)), most)
        seconds = time.perf_counter() - start
        truth = self.queries.target_indptr, self.queries.target_items
        metrics = {"recall": recall, "ndcg": ndcg}
        measured = {f"{name}_{k}": of(items[:, :k], *truth) for name, of in metrics.items() for k in self.top_ks}
        by_frequency = recall_by_frequency(items, *truth, self.data.train_counts)
        return {**measured, "by_frequency": by_frequency, "seconds": round(seconds, 2)}


def best_baseline(methods: Mapping[str, Measures], metric: str) -> str:
    """The name of the baseline with the highest `metric`; at least one of them is in `methods`."""
    return max((name for name in methods if name in BASELINES), key=lambda name: methods[name][metric])
