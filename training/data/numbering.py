"""Indices of users, items and categories, and the log's rows sorted by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.errors import DataError
from nann.item_ids import MAX_ID_BYTES, shown, why_no_text_id

NO_CATEGORY = "(none)"
"""The only category of a log without categories."""

UNKNOWN_CATEGORY = "(unknown)"
"""Category of items without one in a log with categories; the last category."""

_NEW_ENGINE = (1, 31)
"""The first polars whose streaming engine can run these queries; older ones run them in memory."""


@dataclass(frozen=True)
class KeptUsers:
    """The users that are kept.

    Attributes:
        frame: `user` (ascending) and `user_index` (Int32).
        dropped: how many users have too few behaviours.
        dropped_rows: their behaviours.
        first, end: `int64[U]`, each user's first row and the row after the last.
    """

    frame: pl.DataFrame
    dropped: int
    dropped_rows: int
    first: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]


def collect(frame: pl.LazyFrame) -> pl.DataFrame:
    """Runs a query, streaming if this polars can."""
    version = tuple(int(part) for part in pl.__version__.split(".")[:2])
    return frame.collect(engine="streaming") if version >= _NEW_ENGINE else frame.collect()


def kept_users(rows: pl.LazyFrame, min_behaviors: int) -> KeptUsers:
    """Users with at least `min_behaviors` rows, numbered by ascending id.

    Raises:
        DataError: if there are none.
    """
    everyone = collect(rows.group_by("user").agg(pl.len().cast(pl.Int64).alias("count")))
    kept = everyone.filter(pl.col("count") >= min_behaviors).sort("user")
    counts = kept["count"].to_numpy()
    if not kept.height:
        raise DataError(
            f"none of the log's {everyone.height:,} users has {min_behaviors} behaviours (the most active has "
            f"{everyone['count'].to_numpy().max():,}); lower --min-behaviors or give a longer log"
        )
    frame = kept.select("user", pl.int_range(pl.len(), dtype=pl.Int32).alias("user_index"))
    end = counts.cumsum()
    rows_left_out = int(everyone["count"].to_numpy().sum() - counts.sum())
    return KeptUsers(frame, everyone.height - kept.height, rows_left_out, end - counts, end)


def numbered_items(rows: pl.LazyFrame, table: pl.LazyFrame | None, before: pl.Series | None = None) -> pl.DataFrame:
    """All items of some rows, numbered by ascending id.

    Args:
        rows: rows of the log.
        table: `item` and optionally `category` and `name`, one row per item.
        before: items that have numbers, in this order; the others follow.

    Returns:
        `item` (Int64, or String by its UTF-8 bytes), and if the log has them `category`, `stray` (how many rows give
        the item another category) and `name`.

    Raises:
        DataError: if a text can't be an item's id.
    """
    items = _categories_of_items(rows) if "category" in rows.collect_schema() else rows.select("item").unique()
    if table is not None:
        items = items.join(table, on="item", how="left")
        if "name" in table.collect_schema():
            items = items.with_columns(pl.col("name").fill_null(pl.format("item {}", "item")))
    numbered = _checked(collect(items).sort("item"))
    if before is None:
        return numbered
    old = pl.DataFrame({"item": before}).with_row_index("number")
    return numbered.join(old, on="item", how="left").sort("number", "item", nulls_last=True).drop("number")


def _categories_of_items(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Each item's most frequent category; of several the newest, then the smallest. An item may have none."""
    given = rows.filter(pl.col("category").is_not_null())
    pairs = given.group_by("item", "category").agg(pl.len().alias("rows"), pl.col("time").max().alias("newest"))
    best = pairs.sort(["rows", "newest", "category"], descending=[True, True, False])
    chosen = best.group_by("item", maintain_order=True).agg(
        pl.col("category").first(), (pl.col("rows").sum() - pl.col("rows").first()).cast(pl.Int64).alias("stray")
    )
    everything = rows.select("item").unique().join(chosen, on="item", how="left")
    return everything.with_columns(pl.col("stray").fill_null(0))


def _checked(items: pl.DataFrame) -> pl.DataFrame:
    bad = items.filter(~fits_text_id("item")).head(1)["item"].to_list() if items.schema["item"] == pl.String else []
    if bad:
        raise DataError(f"the log has the item id {shown(bad[0])}; expected {why_no_text_id(bad[0])}")
    return items


def fits_text_id(column: str) -> pl.Expr:
    """Whether a text can be an id: of an item, or of a user in a store of histories."""
    return pl.col(column).str.len_bytes().is_between(1, MAX_ID_BYTES) & ~pl.col(column).str.contains("\0", literal=True)


def distinct_items(rows: pl.LazyFrame) -> int:
    """How many items some rows of the log have."""
    return int(collect(rows.select(pl.col("item").n_unique())).item())


def numbered_categories(items: pl.DataFrame) -> tuple[list[str], pl.DataFrame]:
    """Numbers the categories by sorted label: gives the labels, and `items` with `category` as Int32."""
    if "category" not in items.columns:
        return [NO_CATEGORY], items.with_columns(pl.lit(0, pl.Int32).alias("category"))
    values = items.select("category").drop_nulls().unique().sort("category")
    codes = values.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).alias("code"))
    labels = values["category"].cast(pl.String).to_list()
    coded = items.with_row_index("number").join(codes, on="category", how="left").sort("number").drop("number")
    if coded["code"].null_count():
        labels.append(UNKNOWN_CATEGORY)
    code = pl.col("code").fill_null(values.height).alias("category")
    return labels, coded.with_columns(code).drop("code")


def ordered_behaviors(
    rows: pl.LazyFrame, users: KeptUsers, items: pl.DataFrame, late_from: int | None = None
) -> pl.DataFrame:
    """The kept users' rows by user, then time, then position in the log; a basket stays together, at its earliest time.

    With `late_from`, a time of the log, the part of a basket from that time on is a basket of its own.

    Returns:
        `user` and `item`, Int32 indices, `group_first` Int64, the first row of the row's basket, or itself, `late`,
        whether the row is at or after `late_from`, and `time`, Int64, by which the row is sorted.
    """
    late = pl.lit(False) if late_from is None else pl.col("time") >= late_from
    has_baskets = "basket" in rows.collect_schema()
    numbered, keys = with_order(rows.with_columns(late.alias("late")))
    order = ["user_index", *keys]
    item_index = items.lazy().select("item", pl.int_range(pl.len(), dtype=pl.Int32).alias("item_index"))
    frame = collect(
        numbered.join(users.frame.lazy(), on="user", how="inner")
        .join(item_index, on="item", how="inner")
        .select(*order, "item_index", "late")
        .sort(order)
    )
    group_first = np.arange(frame.height, dtype=np.int64)
    if has_baskets:
        basket = frame["basket_row"].to_numpy()
        begins = np.append(True, basket[1:] != basket[:-1])
        group_first = np.maximum.accumulate(np.where(begins, group_first, 0))
    indices = pl.col("user_index").alias("user"), pl.col("item_index").alias("item")
    return frame.select(*indices, pl.Series("group_first", group_first), "late", pl.col(keys[0]).alias("time"))


def with_order(rows: pl.LazyFrame) -> tuple[pl.LazyFrame, list[str]]:
    """Rows of a log, maybe with `late`, and the columns that order a user's: the first is a time, the last `row`.

    A basket stays together, at its earliest time; one that is partly `late` is two.
    """
    numbered = rows.with_row_index("row")
    if "basket" not in rows.collect_schema():
        return numbered, ["time", "row"]
    first = [pl.col("time").min().alias("basket_time"), pl.col("row").min().alias("basket_row")]
    key = ["user", "basket", *(["late"] if "late" in rows.collect_schema() else [])]
    return numbered.join(numbered.group_by(key).agg(first), on=key, how="inner"), ["basket_time", "basket_row", "row"]
