"""Columns of a table as whole numbers, times and keys, whatever their type in the file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from nann.errors import DataError

MICROSECONDS = 1_000_000
"""In a second."""

_MAX_SECONDS = (1 << 63) // MICROSECONDS - 1
_MAX_EXACT_FLOAT = float(1 << 53)
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


def integer_column(name: str, schema: pl.Schema, path: Path) -> pl.Expr:
    """A column as Int64; null where it is not a whole number or does not fit.

    Raises:
        DataError: if its type can't hold whole numbers.
    """
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


def time_column(name: str, schema: pl.Schema, path: Path) -> pl.Expr:
    """A column as microseconds, Int64; null where it is not a time.

    Raises:
        DataError: if its type can't hold times.
    """
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


def parse_time(text: str) -> int | None:
    """A time as a log may write it, in microseconds since 1970; None if it is not a time."""
    frame = pl.DataFrame({"time": [text]})
    moment: int | None = frame.select(time_column("time", frame.schema, Path("time"))).item()
    return moment


def _from_seconds(seconds: pl.Expr) -> pl.Expr:
    # Microseconds or nanoseconds given as seconds would overflow; they become null, a bad row.
    inside = pl.when(seconds.abs() <= _MAX_SECONDS).then(seconds)
    return (inside * MICROSECONDS).round().cast(pl.Int64, strict=False)


def _from_iso(text: pl.Expr) -> list[pl.Expr]:
    spaced = text.str.replace("T", " ", literal=True).str.replace(r"[Zz]$", "+00:00")
    local = [spaced.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("us") for form in _TIME_FORMATS]
    zoned = spaced.str.to_datetime(f"{_TIME_FORMATS[0]}%z", time_unit="us", time_zone="UTC", strict=False)
    return [*local, zoned.dt.epoch("us")]


def fits_int64(kind: pl.DataType) -> bool:
    """Whether all values of a type are whole numbers that Int64 holds."""
    return (kind.is_signed_integer() and kind != pl.Int128) or kind in (pl.UInt8, pl.UInt16, pl.UInt32)


def key_column(name: str, schema: pl.Schema, wanted: pl.DataType, path: Path) -> pl.Expr:
    """A user, category or basket column as Int64 or String; null where it is empty.

    Raises:
        DataError: if its type is neither whole numbers nor text.
    """
    column, kind = pl.col(name), schema[name]
    if wanted == pl.Int64:
        return column.cast(pl.Int64)
    if kind.is_float():
        return integer_column(name, schema, path).cast(pl.String)
    if kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum):
        text = column.cast(pl.String).str.strip_chars()
        return pl.when(text.str.len_bytes() > 0).then(text)
    raise DataError(f"column {name!r} of {path} has type {kind}; expected whole numbers or text")
