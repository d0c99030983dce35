"""Reader for any CSV or Parquet log, given the names of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from nann.errors import DataError

from .profiles import UserProfiles, encode_profiles
from .rows import MAX_BAD_SHARE, InteractionLog, RowStage, first_problem, mark_cut
from .sources import BATCH_BYTES, BATCH_ROWS
from .tables import LINE, MALFORMED, check_columns, table_batches, table_schema

_MICROSECONDS = 1_000_000
_MAX_SECONDS = (1 << 63) // _MICROSECONDS - 1
_MAX_EXACT_FLOAT = float(1 << 53)
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


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
    """A table of users: its file, its column of user ids, and the profile fields to read (empty: all other columns)."""

    path: Path
    user: str = "user"
    fields: tuple[str, ...] = ()


def read_log(
    files: Sequence[Path],
    columns: LogColumns,
    scratch: Path,
    *,
    name: str = "log",
    separator: str = ",",
    profile: ProfileTable | None = None,
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
    sources = tuple(str(path) for path in files)
    return InteractionLog(name, sources, good, counts, profiles=profiles, settings={"columns": named})


def _key_types(files: Sequence[Path], named: dict[str, str], separator: str) -> dict[str, pl.DataType]:
    """Int64 for keys that are whole numbers in all files, String for the others."""
    types: dict[str, pl.DataType] = {key: pl.Int64() for key in named if key in ("user", "category", "basket")}
    for path in files:
        schema = table_schema(path, separator)
        check_columns(path, schema, list(named.values()))
        for key in types:
            if not schema[named[key]].is_integer():
                types[key] = pl.String()
    return types


def _canonical(raw: pl.DataFrame, named: dict[str, str], key_types: dict[str, pl.DataType], path: Path) -> pl.DataFrame:
    schema = raw.schema
    columns = [_integer(named["item"], schema, path).alias("item"), _time(named["time"], schema, path).alias("time")]
    columns += [_key(named[key], schema, kind, path).alias(key) for key, kind in key_types.items()]
    required = [key for key in ("user", "basket") if key in named]
    problem = first_problem(
        [
            *((pl.col(key).is_null(), f"empty {key} (column {named[key]!r})") for key in required),
            (~(pl.col("item") > 0).fill_null(False), f"item (column {named['item']!r}) is not a positive whole number"),
            (pl.col("time").is_null(), f"time (column {named['time']!r}) is neither seconds nor an ISO timestamp"),
        ]
    )
    rows = raw.select(*columns, pl.col(LINE).alias("number"), pl.col(MALFORMED).alias("malformed"))
    return rows.with_columns(pl.coalesce("malformed", problem).alias("problem")).drop("malformed")


def _integer(name: str, schema: pl.Schema, path: Path) -> pl.Expr:
    """A column as Int64; null where it is not a whole number or does not fit."""
    column, kind = pl.col(name), schema[name]
    if kind.is_integer():
        return column.cast(pl.Int64, strict=False)
    if kind.is_float():
        whole = (column == column.floor()) & (column.abs() <= _MAX_EXACT_FLOAT)
        return pl.when(whole).then(column).cast(pl.Int64, strict=False)
    if kind == pl.String:
        # Tables with gaps are often written with whole numbers as "12.0".
        return column.str.strip_chars().str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
    raise DataError(f"column {name!r} of {path} has type {kind}; expected whole numbers: number the items from 1")


def _time(name: str, schema: pl.Schema, path: Path) -> pl.Expr:
    """A column as microseconds, Int64; null where it is not a time."""
    column, kind = pl.col(name), schema[name]
    if kind == pl.Date:
        return column.cast(pl.Datetime("us")).dt.epoch("us")
    if isinstance(kind, pl.Datetime):
        return column.dt.epoch("us")
    if kind.is_integer():
        return _from_seconds(column.cast(pl.Int64, strict=False))
    if kind.is_float():
        return _from_seconds(column)
    if kind == pl.String:
        text = column.str.strip_chars()
        numbers = [_from_seconds(text.cast(pl.Int64, strict=False)), _from_seconds(text.cast(pl.Float64, strict=False))]
        return pl.coalesce([*numbers, *_from_iso(text)])
    raise DataError(f"column {name!r} of {path} has type {kind}; expected seconds, a timestamp or ISO 8601 text")


def _from_seconds(seconds: pl.Expr) -> pl.Expr:
    # Microseconds or nanoseconds given as seconds would overflow; they become null, a bad row.
    inside = pl.when(seconds.abs() <= _MAX_SECONDS).then(seconds)
    return (inside * _MICROSECONDS).round().cast(pl.Int64, strict=False)


def _from_iso(text: pl.Expr) -> list[pl.Expr]:
    spaced = text.str.replace("T", " ", literal=True).str.replace(r"[Zz]$", "+00:00")
    local = [spaced.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("us") for form in _TIME_FORMATS]
    zoned = spaced.str.to_datetime(f"{_TIME_FORMATS[0]}%z", time_unit="us", time_zone="UTC", strict=False)
    return [*local, zoned.dt.epoch("us")]


def _key(name: str, schema: pl.Schema, wanted: pl.DataType, path: Path) -> pl.Expr:
    """A user, category or basket column as Int64 or String; null where it is empty."""
    column, kind = pl.col(name), schema[name]
    if wanted == pl.Int64:
        return column.cast(pl.Int64, strict=False)
    if kind.is_float():
        return _integer(name, schema, path).cast(pl.String)
    if kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum):
        text = column.cast(pl.String).str.strip_chars()
        return pl.when(text.str.len_bytes() > 0).then(text)
    raise DataError(f"column {name!r} of {path} has type {kind}; expected whole numbers or text")


def _number_users(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Makes users Int64 if all are plain whole numbers; one "007" or "u7" keeps all of them text."""
    if rows.collect_schema()["user"] != pl.String:
        return rows
    number = pl.col("user").cast(pl.Int64, strict=False)
    plain = (number.cast(pl.String) == pl.col("user")).fill_null(False)
    return rows.with_columns(number) if rows.select(plain.all()).collect().item() else rows


def _read_profiles(profile: ProfileTable, rows: pl.LazyFrame, separator: str) -> UserProfiles:
    schema = table_schema(profile.path, separator)
    fields = list(profile.fields) or [name for name in schema if name != profile.user]
    check_columns(profile.path, schema, [profile.user, *fields])
    batches = [batch.rows for batch in table_batches(profile.path, [profile.user, *fields], separator)]
    if not batches:
        raise DataError(f"{profile.path} has no rows; expected one row per user")
    table = pl.concat(batches)
    malformed = table.filter(pl.col(MALFORMED).is_not_null())
    if malformed.height:
        number, reason = malformed.select(LINE, MALFORMED).row(0)
        raise DataError(f"{profile.path}:{number}: {reason}; correct the line")
    return encode_profiles(table, profile.user, fields, rows, str(profile.path))
