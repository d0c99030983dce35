"""Columns of a table as keys: whole numbers or text, whatever their type in the file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from nann.errors import DataError

_MAX_EXACT_FLOAT = float(1 << 53)
TEXTS = (pl.String, pl.Categorical, pl.Enum)


def fits_int64(kind: pl.DataType) -> bool:
    """Whether all values of a type are whole numbers that Int64 holds."""
    return (kind.is_signed_integer() and kind != pl.Int128) or kind in (pl.UInt8, pl.UInt16, pl.UInt32)


def key_column(name: str, kind: pl.DataType, wanted: pl.DataType, path: Path) -> pl.Expr:
    """A column of some type as Int64 or String, without spaces around; null where it is empty or no key.

    Int64 can be wanted of a column that `fits_int64`.

    Raises:
        DataError: if its type is neither whole numbers nor text.
    """
    column = pl.col(name)
    if wanted == pl.Int64:
        return column.cast(pl.Int64)
    if kind.is_float():
        whole = (column == column.floor()) & (column.abs() <= _MAX_EXACT_FLOAT)
        return pl.when(whole).then(column).cast(pl.Int64, strict=False).cast(pl.String)
    if kind.is_decimal():
        text = column.cast(pl.String)
        return pl.when(text.str.contains(r"^[^.]*(\.0*)?$")).then(text.str.replace(r"\.0*$", ""))
    if kind.is_integer() or kind in TEXTS:
        text = column.cast(pl.String).str.strip_chars()
        return pl.when(text.str.len_bytes() > 0).then(text)
    raise DataError(f"column {name!r} of {path} has type {kind}; expected whole numbers or text")


def may_be_lost(kind: pl.DataType) -> bool:
    """Whether a value of this type may be there and be no key: half a number."""
    return kind.is_float() or kind.is_decimal()


def plain_number(text: pl.Expr) -> pl.Expr:
    """Text as Int64 where it is a whole number written plainly, else null: "007", "+7" and "7.0" are none."""
    number = text.cast(pl.Int64, strict=False)
    return pl.when(number.cast(pl.String) == text).then(number)


def item_number(key: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """An item's key, Int64 or String as `kind` says, as a number from 1 to 2^63 - 1, else null.

    Tables with gaps are often written with whole numbers as "12.0", which is 12.
    """
    number = plain_number(key.str.replace(r"\.0+$", "")) if kind == pl.String else key
    return pl.when(number > 0).then(number)
