"""User profile fields: columns of a table of users as codes; 0 = unknown.

A category has the codes 1..n by sorted value. A number is cut into bins with about as many users in each, codes 1..n in
ascending order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nann.errors import DataError

from .columns import TEXTS, key_column, plain_number
from .csv_rows import LINE
from .item_attributes import CATEGORY, NUMBER, bin_edges
from .remarks import Remarks

MANY_VALUES = 1_000
"""A category with more values is pointed out: it may be a number."""


@dataclass(frozen=True)
class UserProfiles:
    """User profiles.

    Attributes:
        codes: one row per user: `user` (the log's type) and Int32 columns `profile_0`, `profile_1`, ..., one per field.
        fields: `{"name": ..., "kind": ..., "values": [...]}` per field; code i + 1 stands for `values[i]`. Kind
            "category", or "number" with `edges` too: code i + 1 is the bin from `edges[i - 1]` to below `edges[i]`, and
            `values` are the bins in words.
        outside: rows of the table whose user is not in the log.
        conversions: what could not be read as it is written, a line each.
    """

    codes: pl.DataFrame
    fields: tuple[dict[str, Any], ...]
    outside: int
    conversions: tuple[str, ...] = ()


def encode_profiles(
    table: pl.DataFrame,
    user: str,
    fields: Sequence[str],
    log_users: pl.LazyFrame,
    source: str,
    numbers: Sequence[str] = (),
) -> UserProfiles:
    """Turns the columns of a user table into codes.

    Args:
        table: one row per user, and `LINE`; values are compared as text, empty ones are unknown.
        user: the column with the user's id, as the log has it.
        fields: the columns that are profile fields.
        log_users: has the log's `user` column.
        source: name of the table, for messages.
        numbers: fields to be read as numbers. Columns of floats are, and texts that are all numbers, some of them with
            a decimal point.

    Raises:
        DataError: if a user has several rows, no user of the table is in the log, or a column is of an odd type or has
            no number.
    """
    user_type = log_users.collect_schema()["user"]
    columns = [_values(table[name], name in numbers, source) for name in fields]
    key = table.select(_key(table, user, user_type, source))
    frame = key.with_columns(*(column.alias(f"profile_{i}") for i, column in enumerate(columns)))
    frame = frame.filter(pl.col("user").is_not_null())
    repeated = frame.filter(pl.col("user").is_duplicated())
    if repeated.height:
        raise DataError(f"{source} has several rows for user {repeated['user'][0]}; expected one row per user")
    known = frame.join(log_users.select("user").unique().collect(), on="user", how="semi")
    if not known.height:
        raise DataError(f"none of the {frame.height:,} users of {source} is in the log; check its column {user!r}")
    remarks = Remarks(source, table[LINE])
    remarks.without_key(table[user], key["user"], "user as the log has them")
    for name in (user, *fields):
        remarks.spaces_around(table[name])
    coded, described = [], []
    for i, (name, column) in enumerate(zip(fields, columns, strict=True)):
        field, codes = _coded(known[f"profile_{i}"], frame[f"profile_{i}"])
        described.append({"name": name, **field})
        coded.append(codes)
        if field["kind"] == NUMBER:
            remarks.not_numbers(table[name], column)
            continue
        remarks.almost_numbers(table[name], "--profile-numbers")
        if len(field["values"]) > MANY_VALUES:
            remarks.said.append(
                f"column {name!r} of {source} has {len(field['values']):,} values, each a category of its own: "
                "--profile-numbers reads it as a number, --profile-fields leaves it out"
            )
    outside = table.height - known.height
    return UserProfiles(frame.with_columns(coded), tuple(described), outside, tuple(remarks.said))


def _key(table: pl.DataFrame, user: str, user_type: pl.DataType, source: str) -> pl.Expr:
    """The user ids in the log's type; null for what can't be one of the log's users: "007" is not 7."""
    text = key_column(user, table.schema[user], pl.String(), Path(source))
    if user_type == pl.String:
        return text.alias("user")
    return plain_number(text).alias("user")


def _values(column: pl.Series, as_number: bool, source: str) -> pl.Series:
    """A column as String or Float64, null where it is unknown."""
    if not (column.dtype.is_numeric() or column.dtype in (*TEXTS, pl.Boolean)):
        raise DataError(
            f"column {column.name!r} of {source} has type {column.dtype}; expected numbers, text or true or false: "
            "name the columns to read with --profile-fields"
        )
    text: pl.Series = column.cast(pl.String).str.strip_chars().replace("", None)
    number = text.cast(pl.Float64, strict=False)
    finite: pl.Series = number.set(~number.is_finite(), None)
    if as_number or column.dtype.is_float() or column.dtype.is_decimal():
        if text.is_not_null().any() and finite.is_null().all() and column.dtype == pl.String:
            example = text.drop_nulls()[0]
            raise DataError(
                f"column {column.name!r} of {source} has no number, but {example!r}; leave it out of --profile-numbers"
            )
        return finite
    points = text.str.contains(".", literal=True).any()
    return finite if column.dtype == pl.String and points and finite.null_count() == text.null_count() else text


def _coded(known: pl.Series, column: pl.Series) -> tuple[dict[str, Any], pl.Series]:
    """A field's description, from the users of the log (`known`), and the codes of the whole column."""
    if column.dtype == pl.String:
        values = column.drop_nulls().unique().sort().to_list()
        return {"kind": CATEGORY, "values": values}, _codes(column, values)
    numbers = known.drop_nulls().to_numpy()
    edges = bin_edges(numbers) if numbers.size else np.empty(0)
    values = _bins(edges.tolist()) if numbers.size else []
    filled = column.fill_null(0.0).to_numpy()
    codes = np.where(column.is_null().to_numpy() | (not values), 0, 1 + np.searchsorted(edges, filled, side="right"))
    return {"kind": NUMBER, "values": values, "edges": edges.tolist()}, pl.Series(column.name, codes, pl.Int32)


def _bins(edges: list[float]) -> list[str]:
    """The bins between edges, in words."""
    shown = [f"{edge:.12g}" for edge in edges]
    if not shown:
        return ["any number"]
    between = [f"{low} to below {high}" for low, high in pairwise(shown)]
    return [f"below {shown[0]}", *between, f"{shown[-1]} or more"]


def _codes(column: pl.Series, values: list[str]) -> pl.Series:
    """The code of each value of a column: its position in `values` plus 1, 0 for null."""
    numbers = list(range(1, len(values) + 1))
    if not values:
        return pl.zeros(len(column), pl.Int32, eager=True).alias(column.name)
    codes: pl.Series = column.replace_strict(values, numbers, default=0, return_dtype=pl.Int32).fill_null(0)
    return codes
