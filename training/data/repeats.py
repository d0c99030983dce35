"""Merges repeated behaviours."""

from __future__ import annotations

import polars as pl

from .numbering import collect


def merge_repeats(rows: pl.LazyFrame) -> tuple[pl.LazyFrame, int]:
    """Leaves out rows with the same item as the user's row before, or as an earlier row of the basket if there are any.

    Returns:
        The other rows, by user and time, and how many were left out.
    """
    ordered = collect(rows.sort("user", "time", maintain_order=True))
    if "basket" in ordered.columns:
        kept = ordered.unique(["user", "basket", "item"], keep="first", maintain_order=True)
    else:
        changes = [pl.col(name).ne_missing(pl.col(name).shift(1)) for name in ("user", "item")]
        kept = ordered.filter(changes[0] | changes[1])
    return kept.lazy(), ordered.height - kept.height
