"""The items' attributes as they are, for filters: values that the model's codes leave out or merge are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from nann import item_sets
from nann.errors import DataError
from nann.filters import Catalogue
from nann.filters.columns import CategoryColumn, Column, FlagColumn, NumberColumn
from nann.filters.vocabulary import Vocabulary

from .item_table import ItemValues

CATEGORY = "category"
"""The attribute that a log itself may have."""
MAX_ATTRIBUTES = 1_000
_MAX_NAME = 200


def kept_columns(items: pl.DataFrame, values: ItemValues | None, *, with_category: bool) -> pl.DataFrame | None:
    """The attributes of the items of a log, one row an item, one column an attribute; None if there are none.

    Args:
        items: `item` (unique) and maybe `category`, as the log has it.
        values: what a table of items says.
        with_category: `category` is an attribute too, unless the table has one of this name.
    """
    columns: list[pl.Expr] = []
    if values is not None:
        # A left join guarantees no order.
        items = items.with_row_index("index").join(values.frame.drop("name", strict=False), on="item", how="left")
        items = items.sort("index")
        exact = [f"exact_{i}" if f"exact_{i}" in items.columns else f"field_{i}" for i in range(len(values.fields))]
        columns += [pl.col(column).alias(name) for column, name in zip(exact, values.fields, strict=True)]
    if with_category and (values is None or CATEGORY not in values.fields):
        columns.append(pl.col(CATEGORY))
    return items.select(columns) if columns else None


def catalogue_of(attributes: Mapping[str, Any], item_count: int) -> Catalogue:
    """The attributes of N items as a bundle keeps them.

    Args:
        attributes: by name, one value an item, None where an item has none. Booleans are a flag, whole numbers and
            floats a number (NaN: no value), texts a category, and lists of texts or whole numbers several.
        item_count: N.

    Raises:
        DataError: naming the attribute, if its values are not N, or of another type, or a number is infinite.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        raise DataError(f"got {len(attributes):,} attributes; expected at most {MAX_ATTRIBUTES:,}")
    return Catalogue({name: _column(name, values, item_count) for name, values in attributes.items()}, item_count)


def _column(name: str, values: Any, item_count: int) -> Column:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise DataError(
            f"an attribute has the name {str(name)[:_MAX_NAME]!r}; expected text, 1 to {_MAX_NAME} characters"
        )
    try:
        series = pl.Series(name, values)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"attribute {name!r} can't be read: {why}; expected values of one type") from error
    if len(series) != item_count:
        raise DataError(f"attribute {name!r} has {len(series):,} values; expected {item_count:,}, one an item")
    kind = series.dtype
    if kind == pl.Boolean:
        sets = [item_sets.of_items(_indices(series == value), item_count) for value in (False, True)]
        return FlagColumn(item_count, np.stack(sets))
    if kind.is_integer() and _fits(series):
        return _numbers(series.cast(pl.Int64), item_count)
    if kind.is_float() or kind.is_decimal():
        infinite = series.cast(pl.Float64).is_infinite().fill_null(False).arg_true()
        if len(infinite):
            raise DataError(
                f"attribute {name!r} is {series[infinite[0]]} for item index {infinite[0]}; expected a finite number, "
                "or None where an item has none"
            )
        return _numbers(series.cast(pl.Float64), item_count)
    texts = _texts(series)
    if texts is None:
        raise DataError(
            f"attribute {name!r} has type {kind}; expected true and false, numbers, texts, or lists of texts or whole "
            "numbers, with at least one value"
        )
    return _categories(texts, item_count)


def _fits(series: pl.Series) -> bool:
    return series.dtype != pl.UInt64 or bool((series.drop_nulls() <= np.iinfo(np.int64).max).all())


def _texts(series: pl.Series) -> pl.Series | None:
    """The values as List(String), or None if they are no categories."""
    kind, texts = series.dtype, (pl.String, pl.Categorical, pl.Enum)
    if isinstance(kind, (pl.List, pl.Array)):
        fits = kind.inner in texts or kind.inner.is_integer()
        return series.cast(pl.List(kind.inner)).cast(pl.List(pl.String)) if fits else None
    if kind not in texts:
        return None
    return pl.DataFrame({"value": series}).select(pl.concat_list(pl.col("value").cast(pl.String)))["value"]


def _indices(where: pl.Series) -> Any:
    return where.fill_null(False).arg_true().to_numpy().astype(np.int32)


def _numbers(series: pl.Series, item_count: int) -> NumberColumn:
    known = series.is_finite().fill_null(False) if series.dtype.is_float() else series.is_not_null()
    items = _indices(known)
    values = series.filter(known).to_numpy()
    order = np.argsort(values, kind="stable")
    return NumberColumn(item_count, items[order], values[order])


def _categories(lists: pl.Series, item_count: int) -> CategoryColumn:
    line = pl.col("value").str.replace_all(r"[\r\n]+", " ")  # the vocabulary has one value a line
    pairs = pl.DataFrame({"value": lists}).with_row_index("item").explode("value").drop_nulls("value")
    pairs = pairs.with_columns(line).unique().sort("value", "item")
    counts = pairs.group_by("value", maintain_order=True).len("items")
    return CategoryColumn(
        item_count,
        pairs["item"].to_numpy().astype(np.int32),
        np.append(0, counts["items"].cast(pl.Int64).cum_sum().to_numpy()).astype(np.int64),
        Vocabulary.of(counts["value"].to_list()),
        several=pairs["item"].n_unique() < pairs.height,
    )
