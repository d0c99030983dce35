"""The baselines on a log whose figures are known: reviews of "Toys and Games" (as S3-Rec has them), leave-one-out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from support.sequences import data_of

from nann.training.baselines.compare import BASELINES, Comparison

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
        rows = [np.array([int(item) - 1 for item in line.split()[1:]]) for line in lines]
    data = data_of(rows, held_out=1, excludes_history=True)
    return Comparison(data, data.queries("test", 600), (20, 200))


@pytest.mark.parametrize("name", KNOWN)
def test_known_figures(comparison, name):
    measured = comparison.baseline(name)
    assert {metric: measured[metric] for metric in KNOWN[name]} == pytest.approx(KNOWN[name], rel=0.04)
    assert list(KNOWN) == [name for name in BASELINES if name != "own_items"]
