"""User profile fields: categorical columns of a table of users, as codes 1..n by sorted value; 0 = unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from nann.errors import DataError


@dataclass(frozen=True)
class UserProfiles:
    """User profiles.

    Attributes:
        codes: one row per user: `user` (the log's type) and Int32 columns `profile_0`, `profile_1`, ..., one per field.
        fields: `{"name": ..., "values": [...]}` per field; code i + 1 stands for `values[i]`.
    """

    codes: pl.DataFrame
    fields: tuple[dict[str, Any], ...]


def encode_profiles(
    table: pl.DataFrame, user: str, fields: Sequence[str], log_users: pl.LazyFrame, source: str
) -> UserProfiles:
    """Turns the columns of a user table into codes.

    Args:
        table: one row per user; values are compared as text, empty ones are unknown.
        user: the column with the user's id.
        fields: the columns that are profile fields.
        log_users: has the log's `user` column.
        source: name of the table, for messages.

    Raises:
        DataError: if a user has several rows, or no user of the table is in the log.
    """
    user_type = log_users.collect_schema()["user"]
    key = pl.col(user).cast(pl.String).str.strip_chars().cast(user_type, strict=False).alias("user")
    texts = [pl.col(name).cast(pl.String).str.strip_chars().replace("", None) for name in fields]
    named = [text.alias(f"profile_{i}") for i, text in enumerate(texts)]
    frame = table.select(key, *named).filter(pl.col("user").is_not_null())
    repeated = frame.filter(pl.col("user").is_duplicated())
    if repeated.height:
        raise DataError(f"{source} has several rows for user {repeated['user'][0]}; expected one row per user")
    if not frame.height or log_users.join(frame.lazy(), on="user", how="semi").head(1).collect().height == 0:
        raise DataError(f"none of the {frame.height:,} users of {source} is in the log; check its column {user!r}")
    values = [frame[f"profile_{i}"].drop_nulls().unique().sort().to_list() for i in range(len(fields))]
    codes = [_codes(f"profile_{i}", column) for i, column in enumerate(values)]
    described = tuple({"name": name, "values": column} for name, column in zip(fields, values, strict=True))
    return UserProfiles(frame.with_columns(codes), described)


def _codes(column: str, values: list[str]) -> pl.Expr:
    """The code of each value of a column: its position in `values` plus 1, 0 for null."""
    if not values:
        return pl.lit(0, pl.Int32).alias(column)
    numbers = list(range(1, len(values) + 1))
    return pl.col(column).replace_strict(values, numbers, default=0, return_dtype=pl.Int32).fill_null(0)
