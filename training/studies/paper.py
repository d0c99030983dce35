"""The paper's own results (arXiv 2202.10226), to compare with: Table 3 and the curves of figures 3 and 4."""

from __future__ import annotations

import csv
from pathlib import Path

CURVES_FILE = Path(__file__).with_name("paper_curves.csv")
"""Digitised from the figures, to about 0.05 percentage points."""

USERBEHAVIOR_TABLE3 = {
    "two_sided": {"no_aux": (0.114, 0.113, 0.0074), "aux": (0.125, 0.124, 0.0040)},
    "no_attention": {"no_aux": (0.131, 0.128, 0.0230), "aux": (0.133, 0.131, 0.0120)},
    "attention": {"no_aux": (0.247, 0.239, 0.0348), "aux": (0.256, 0.249, 0.0300)},
}
"""recall-all, recall-retrieval, recall-Delta on UserBehavior, as fractions."""


def userbehavior_curve(figure: str, method: str, metric: str) -> list[tuple[float, float]]:
    """A curve of the paper on UserBehavior: (share of items scored, value), ascending, both as fractions.

    `figure` is "3" or "4", `method` a name of its legend, `metric` "recall" or "coverage".
    """
    with CURVES_FILE.open(encoding="utf-8", newline="") as stream:
        return sorted(
            (float(row["items_scored_percent"]) / 100, float(row["value_percent"]) / 100)
            for row in csv.DictReader(stream)
            if row["figure"].startswith(figure)
            and (row["dataset"], row["method"], row["metric"]) == ("userbehavior", method, metric)
        )
