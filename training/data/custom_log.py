"""Reader for any CSV or Parquet log, given the names of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from .columns import fits_int64, integer_column, key_column, time_column
from .item_table import ItemTable, read_items
from .profiles import UserProfiles, encode_profiles
from .rows import MAX_BAD_SHARE, TRIMMED, InteractionLog, RowStage, first_problem, mark_cut
from .sources import BATCH_BYTES, BATCH_ROWS
from .tables import LINE, MALFORMED, NOT_UTF8, REPLACED, check_columns, table_batches, table_schema, whole_table


@dataclass(frozen=True)
class LogColumns:
    """Names of a log's columns. None: the log has no such column."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    category: str | None = None
    basket: str | None = None

    def named(self) -> dict[str, str]:
        """Canonical name -> the log's name, for the columns it has."""
        return {key: name for key, name in asdict(self).items() if name is not None}


@dataclass(frozen=True)
class ProfileTable:
    """A table of users.

    Attributes:
        path: CSV (with a header) or Parquet.
        user: its column of user ids.
        fields: the columns that are profile fields; empty: all others.
        numbers: fields to be read as numbers; columns of floats always are.
    """

    path: Path
    user: str = "user"
    fields: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


def read_log(
    files: Sequence[Path],
    columns: LogColumns,
    scratch: Path,
    *,
    name: str = "log",
    separator: str = ",",
    profile: ProfileTable | None = None,
    items: ItemTable | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    batch_bytes: int = BATCH_BYTES,
    batch_rows: int = BATCH_ROWS,
) -> InteractionLog:
    """Reads CSV (with a header; plain or gzip) and Parquet files that all have the named columns, in order.

    Users are numbers or text. Items are positive whole numbers that fit int64. Time is in seconds (whole or
    fractional), a timestamp, or ISO 8601 text (UTC if it names no zone).

    `scratch` takes intermediate files, and must stay until the log has been used. A batch is `batch_bytes` of a CSV or
    `batch_rows` of a Parquet file. A larger share of bad rows than `max_bad_share` is refused.

    Raises:
        ConfigError: if the separator or the share is not valid.
        DataError: if a file can't be read or lacks a column, or the log has too many bad rows or no good one.
    """
    named = columns.named()
    stage = RowStage(scratch, max_bad_share)
    key_types = _key_types(files, named, separator)
    for path in files:
        for batch in table_batches(path, list(named.values()), separator, batch_bytes, batch_rows):
            rows = _canonical(batch.rows, named, key_types, path)
            stage.add(path.name, mark_cut(rows) if batch.unterminated else rows)
    good, counts = stage.finish()
    good = _number_users(good)
    profiles = None if profile is None else _read_profiles(profile, good, separator)
    values = None if items is None else read_items(items, separator)
    names = values.frame.lazy().select("item", "name") if values and "name" in values.frame.columns else None
    sources, settings = tuple(str(path) for path in files), {"columns": named}
    said = [line for part in (profiles, values) if part is not None for line in part.conversions]
    if items is not None:
        settings["items"] = {**asdict(items), "path": str(items.path)}
    return InteractionLog(
        name, sources, good, counts, names, profiles, settings, attributes=values, conversions=tuple(said)
    )


def _key_types(files: Sequence[Path], named: dict[str, str], separator: str) -> dict[str, pl.DataType]:
    """Int64 for keys that are whole numbers in all files and fit, String for the others."""
    types: dict[str, pl.DataType] = {key: pl.Int64() for key in named if key in ("user", "category", "basket")}
    for path in files:
        schema = table_schema(path, separator)
        check_columns(path, schema, {name: f"--{key}" for key, name in named.items()})
        for key in types:
            if not fits_int64(schema[named[key]]):
                types[key] = pl.String()
    return types


def _canonical(raw: pl.DataFrame, named: dict[str, str], key_types: dict[str, pl.DataType], path: Path) -> pl.DataFrame:
    schema = raw.schema
    columns = [
        integer_column(named["item"], schema, path).alias("item"),
        time_column(named["time"], schema, path).alias("time"),
    ]
    columns += [key_column(named[key], schema, kind, path).alias(key) for key, kind in key_types.items()]
    columns += [pl.any_horizontal(pl.lit(False), *_trimmed(named, schema)).alias(TRIMMED)]
    required = [key for key in ("user", "basket") if key in named]
    texts = [key for key, kind in key_types.items() if kind == pl.String]
    lossy = [key for key in key_types if schema[named[key]].is_float()]  # not every float is a whole number
    columns += [
        (pl.col(named[key]).is_not_nan() & key_column(named[key], schema, key_types[key], path).is_null())
        .fill_null(False)
        .alias(f"lost_{key}")
        for key in lossy
    ]
    problem = first_problem(
        [
            *((pl.col(key).is_null(), f"empty {key} (column {named[key]!r})") for key in required),
            *(
                (pl.col(key).str.contains(REPLACED, literal=True), f"{key} (column {named[key]!r}) is {NOT_UTF8}")
                for key in texts
            ),
            *(
                (pl.col(f"lost_{key}"), f"{key} (column {named[key]!r}) is neither a whole number nor text")
                for key in lossy
            ),
            (
                ~(pl.col("item") > 0).fill_null(False),
                f"item (column {named['item']!r}) is not a whole number from 1 to 2^63 - 1",
            ),
            (pl.col("time").is_null(), f"time (column {named['time']!r}) is neither seconds nor an ISO timestamp"),
        ]
    )
    rows = raw.select(*columns, pl.col(LINE).alias("number"), pl.col(MALFORMED).alias("malformed"))
    return rows.with_columns(pl.coalesce("malformed", problem).alias("problem")).drop(
        "malformed", *(f"lost_{key}" for key in lossy)
    )


def _trimmed(named: dict[str, str], schema: pl.Schema) -> list[pl.Expr]:
    """For each key that is text in the file, whether there are spaces around it."""
    names = [named[key] for key in ("user", "category", "basket") if key in named]
    return [pl.col(name).str.contains(r"^\s|\s$").fill_null(False) for name in names if schema[name] == pl.String]


def _number_users(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Makes users Int64 if all are plain whole numbers; one "007" or "u7" keeps all of them text."""
    if rows.collect_schema()["user"] != pl.String:
        return rows
    number = pl.col("user").cast(pl.Int64, strict=False)
    plain = (number.cast(pl.String) == pl.col("user")).fill_null(False)
    return rows.with_columns(number) if rows.select(plain.all()).collect().item() else rows


def _read_profiles(profile: ProfileTable, rows: pl.LazyFrame, separator: str) -> UserProfiles:
    schema = table_schema(profile.path, separator)
    chosen = profile.fields or tuple(name for name in schema if name != profile.user)
    fields = list(dict.fromkeys([*chosen, *profile.numbers]))
    options = {
        **dict.fromkeys(profile.numbers, "--profile-numbers"),
        **dict.fromkeys(profile.fields, "--profile-fields"),
        profile.user: "--profile-user",
    }
    check_columns(profile.path, schema, options)
    table = whole_table(profile.path, [profile.user, *fields], separator, "user")
    return encode_profiles(table, profile.user, fields, rows, str(profile.path), profile.numbers)
