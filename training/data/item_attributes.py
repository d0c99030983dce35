"""Attributes of the items, as codes: each field owns a range of codes, and its first code stands for unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.errors import DataError

from .item_table import ItemValues

CATEGORY, CATEGORIES, NUMBER = "category", "categories", "number"

LEAST_ITEMS = 2
"""A value of fewer items is unknown: nothing can be learned from it for other items."""

MOST_SHARE = 0.5
"""A value of a larger share of the items is left out: it tells them hardly apart."""

BINS = 16
"""At most so many quantile bins for a number."""


@dataclass(frozen=True)
class ItemAttributes:
    """Codes of N items. Every item has at least one code of each field.

    Attributes:
        indptr: `int64[N + 1]`, item i's codes are at `indptr[i]:indptr[i + 1]`.
        codes: `int32[nnz]`, ascending and unique within an item, below `count`.
        fields: per field `name`, `kind`, `first_code`, and `values` or `edges`. The first code is unknown: no value is
            given, or none that has a code. Kind "category" (one value) or "categories" (several): code
            `first_code + 1 + i` stands for `values[i]`. Kind "number": code `first_code + 1 + i` stands for the bin
            from `edges[i - 1]` to below `edges[i]`. `unknown` is the number of items whose code is unknown, and
            `left_out` the values that more than half of the items have.
        count: the number of codes over all fields.
    """

    indptr: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]
    fields: tuple[Mapping[str, Any], ...]
    count: int

    @classmethod
    def of(cls, lists: pl.Series, fields: Sequence[Mapping[str, Any]]) -> ItemAttributes:
        """From one list of codes per item, List(Int32), as `items.parquet` holds them, and at least one field."""
        indptr = np.append(0, lists.list.len().cast(pl.Int64).cum_sum().to_numpy())
        codes = np.ascontiguousarray(lists.explode().to_numpy(), np.int32)
        return cls(indptr, codes, tuple(fields), fields[-1]["first_code"] + code_count(fields[-1]))


def code_count(field: Mapping[str, Any]) -> int:
    """How many codes a field has, unknown included."""
    return 2 + len(field["edges"]) if field["kind"] == NUMBER else 1 + len(field["values"])


@dataclass(frozen=True)
class EncodedItems:
    """Items as codes.

    Attributes:
        lists: List(Int32), the codes of each item, ascending.
        fields: as in `ItemAttributes`.
        without: names of the fields that have no value with a code, and so are left out.
        outside: rows of the table for other items.
    """

    lists: pl.Series
    fields: tuple[dict[str, Any], ...]
    without: tuple[str, ...]
    outside: int


def encode_items(values: ItemValues, items: pl.Series) -> EncodedItems:
    """Gives codes to the values of some items: categories by sorted value, numbers by quantile.

    Args:
        values: what the table says.
        items: the items' ids, Int64 or String, unique. An item that the table lacks is unknown in every field.

    Raises:
        DataError: if the table has none of the items, or no field with a code.
    """
    numbered = pl.DataFrame({"item": items}).with_row_index("index")
    known = numbered.join(values.frame, on="item", how="inner")
    if not known.height:
        raise DataError(
            f"none of the {values.frame.height:,} items of {values.source} is in the log; check its column of item ids"
        )
    fields: list[dict[str, Any]] = []
    parts, without, next_code = [], [], 0
    for i, name in enumerate(values.fields):
        rows = known.select("index", pl.col(f"field_{i}").alias("value"))
        is_number = rows.schema["value"] == pl.Float64
        field, coded = _number_codes(rows) if is_number else _category_codes(rows, items.len())
        if not coded.height:
            without.append(name)
            continue
        unknown = numbered.join(coded, on="index", how="anti").select("index", pl.lit(0, pl.Int32).alias("code"))
        parts += [part.with_columns(pl.col("code") + next_code) for part in (coded, unknown)]
        fields.append({"name": name, **field, "first_code": next_code, "unknown": unknown.height})
        next_code += code_count(fields[-1])
    if not fields:
        raise DataError(
            f"{values.source} has no attribute that tells items apart; expected a column with a value of at least "
            f"{LEAST_ITEMS} items and at most half of them, and it has {', '.join(map(repr, without)) or 'only ids'}"
        )
    lists = pl.concat(parts).sort("index", "code").group_by("index", maintain_order=True).agg("code")
    return EncodedItems(lists["code"], tuple(fields), tuple(without), values.frame.height - known.height)


def _category_codes(rows: pl.DataFrame, item_count: int) -> tuple[dict[str, Any], pl.DataFrame]:
    """The field, and `index`, `code` (Int32, unknown is 0) of the values that have a code."""
    pairs = rows.explode("value").drop_nulls("value")
    counts = pairs.group_by("value").len("items").filter(pl.col("items") >= LEAST_ITEMS).sort("value")
    common = pl.col("items") > MOST_SHARE * item_count
    coded = counts.filter(~common).select("value", pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("code"))
    several = bool((rows["value"].list.len() > 1).any())
    field = {
        "kind": CATEGORIES if several else CATEGORY,
        "values": coded["value"].to_list(),
        "left_out": counts.filter(common)["value"].to_list(),
    }
    return field, pairs.join(coded, on="value", how="inner").select("index", "code")


def bin_edges(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Edges of at most `BINS` bins with about as many of the `float64[n]` numbers in each; none if all are the same."""
    # An edge is a value that occurs, so that no bin is empty.
    quantiles = np.unique(np.quantile(numbers, np.arange(1, BINS) / BINS, method="higher"))
    edges: npt.NDArray[np.float64] = quantiles[quantiles > numbers.min()]
    return edges


def _number_codes(rows: pl.DataFrame) -> tuple[dict[str, Any], pl.DataFrame]:
    """The same for a number; a number that is the same for all items has no code."""
    known = rows.drop_nulls("value")
    numbers = known["value"].to_numpy()
    if not numbers.size:
        return {}, known.select("index", pl.lit(0, pl.Int32).alias("code"))
    edges = bin_edges(numbers)
    codes = pl.Series("code", 1 + np.searchsorted(edges, numbers, side="right"), pl.Int32)
    coded = known.select("index").with_columns(codes)
    return {"kind": NUMBER, "edges": edges.tolist(), "left_out": []}, coded if edges.size else coded.clear()
