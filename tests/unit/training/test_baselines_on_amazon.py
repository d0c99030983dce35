"""The baselines on a log whose figures are known: reviews of "Toys and Games" (as S3-Rec has them), leave-one-out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nann.training.baselines.compare import BASELINES, Comparison
from nann.training.data.prepared import PreparedData

LOG = Path(__file__).resolve().parents[4] / "shared/data/amazon/Toys_and_Games.txt.gz"
KNOWN = {
    "popular": {"recall_20": 0.0143, "ndcg_20": 0.0066, "recall_200": 0.0873},
    "item_knn": {"recall_20": 0.1223, "ndcg_20": 0.0662, "recall_200": 0.2505},
    "als": {"recall_20": 0.0977, "ndcg_20": 0.0452, "recall_200": 0.2607},
}
"""Measured by other code. Where several items have the same score, the two may list them in another order, which may be
why the figures of long lists differ by a few percent."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LOG.is_file(), reason="no Amazon reviews beside the checkout"),
]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Every user is asked about the last item and known by those before it, which are left out of the lists."""
    with gzip.open(LOG, "rt") as lines:
        rows = [[int(item) for item in line.split()[1:]] for line in lines]
    items = np.concatenate(rows).astype(np.int32) - 1
    end = np.cumsum([len(row) for row in rows])
    known = np.ones(len(items), np.bool_)
    known[end - 1] = False
    count = int(items.max()) + 1
    data = PreparedData(
        item_ids=np.arange(1, count + 1),
        item_categories=np.zeros(count, np.int32),
        category_count=1,
        item_attributes=None,
        train_counts=np.bincount(items[known], minlength=count),
        item_names=None,
        behavior_items=items,
        behavior_group_first=np.arange(len(items)),
        user_ids=pl.Series(range(len(rows))),
        user_first=end - [len(row) for row in rows],
        user_end=end,
        user_train_end=end - 1,
        user_targets={"test": np.stack([end - 1, end], axis=1)},
        excludes_history=True,
        user_profiles=np.empty((len(rows), 0), np.int32),
        profile_fields=(),
        manifest={},
    )
    return Comparison(data, data.queries("test", 600), (20, 200))


@pytest.mark.parametrize("name", KNOWN)
def test_known_figures(comparison, name):
    measured = comparison.baseline(name)
    assert {metric: measured[metric] for metric in KNOWN[name]} == pytest.approx(KNOWN[name], rel=0.04)
    assert list(KNOWN) == [name for name in BASELINES if name != "own_items"]
