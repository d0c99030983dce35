"""A table of items as categories and numbers: one row per item, one attribute field per column."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nann.errors import DataError

from .columns import TEXTS, item_number, key_column, plain_number
from .csv_rows import LINE, TextFormat
from .files import LogFile
from .remarks import Remarks, finite_numbers
from .tables import PARQUET, open_table, whole_table

VALUE_SEPARATOR = "|"


@dataclass(frozen=True)
class ItemTable:
    """A table of items: where it is and how to read it.

    Attributes:
        path: CSV (with a header), JSON lines or Parquet.
        item: its column of item ids.
        fields: the attribute columns; empty: all others.
        numbers: attribute columns to be read as numbers; columns of floats always are.
        name: a column with the items' names, for people; no attribute unless it is in `fields`.
        value_separator: between several values in a text; empty: a text is one value.
    """

    path: Path
    item: str = "item"
    fields: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    name: str | None = None
    value_separator: str = VALUE_SEPARATOR


@dataclass(frozen=True)
class ItemValues:
    """The values that a table gives to items.

    Attributes:
        frame: `item` (the log's type, unique) and per field `field_0`, `field_1`, ...: List(String), without empty
            values, or Float64, null if unknown. And `name` (String) if the table has names. Of a column of whole
            numbers or true and false that is a category to the model, `exact_0`, ... has the values as they are: Int64
            or Boolean.
        fields: the fields' names.
        source: the table's name, for messages.
        conversions: how many values were read in another way than they are written, a line each.
    """

    frame: pl.DataFrame
    fields: tuple[str, ...]
    source: str
    conversions: tuple[str, ...] = ()


def read_items(table: ItemTable, text: TextFormat, item_type: pl.DataType) -> ItemValues:
    """Reads a table of items; rows without an id as the log has them are left out and counted.

    Args:
        table: where it is, and its columns.
        text: how the log's text files are read.
        item_type: the type of the log's items, Int64 or String.

    Raises:
        DataError: if it can't be read, lacks a column, has no rows or several for an item, or a column of an odd type.
    """
    path = table.path
    options = {
        **dict.fromkeys(table.numbers, "--items-numbers"),
        **dict.fromkeys(table.fields, "--items-fields"),
        **({table.name: "--items-name"} if table.name else {}),
        table.item: "--items-id",
    }
    source = open_table(LogFile.of(path), text, options, beside=True)
    others = [name for name in source.schema if name not in (table.item, table.name)]
    fields = tuple(dict.fromkeys([*(table.fields or others), *table.numbers]))
    written = whole_table(source, [table.item, *fields, *([table.name] if table.name else [])], "item")
    raw = written if source.kind == PARQUET else written.with_columns(_typed(written[name]) for name in fields)
    key = key_column(table.item, raw.schema[table.item], pl.String(), path)
    columns = [(key if item_type == pl.String else item_number(key, pl.String())).alias("item")]
    columns += [_values(name, raw, table).alias(f"field_{i}") for i, name in enumerate(fields)]
    columns += [_exact(name, raw).alias(f"exact_{i}") for i, name in enumerate(fields) if _has_exact(raw.schema[name])]
    if table.name:
        columns.append(_text(pl.col(table.name)).alias("name"))
    whole = raw.select(columns)
    frame = whole.filter(pl.col("item").is_not_null())
    remarks = Remarks(str(path), written[LINE])
    remarks.without_key(written[table.item], whole["item"], "item" if item_type == pl.String else "whole number")
    for i, name in enumerate(fields):
        if whole.schema[f"field_{i}"] == pl.Float64:
            remarks.not_numbers(written[name], whole[f"field_{i}"])
        else:
            remarks.almost_numbers(raw[name], "--items-numbers")
            remarks.spaces_around(raw[name], table.value_separator)
    if table.name:
        remarks.spaces_around(written[table.name])
    repeated = frame.filter(pl.col("item").is_duplicated())
    if repeated.height:
        raise DataError(f"{path} has several rows for item {repeated['item'][0]}; expected one row per item")
    return ItemValues(frame, fields, str(path), tuple(remarks.said))


def _typed(texts: pl.Series) -> pl.Series:
    """A column of a text file, which has no types, as Parquet would have it: whole numbers, floats, or true and false.

    They are all of a kind or stay text. Numbers are floats if one of them has a decimal point, as in a profile.
    """
    given: pl.Series = texts.str.strip_chars().replace("", None) if texts.dtype == pl.String else texts.clear()
    first = given.drop_nulls().head(100)
    for read in (_flags, _whole_numbers, finite_numbers) if len(first) else ():
        if not read(first).null_count() and (typed := read(given)).null_count() == given.null_count():
            # Texts such as 007 are numbers too, but not written as numbers are.
            return typed if read is not finite_numbers or given.str.contains(".", literal=True).any() else texts
    return texts


def _flags(texts: pl.Series) -> pl.Series:
    words = {"true": True, "false": False}
    flags: pl.Series = texts.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    return flags


def _whole_numbers(texts: pl.Series) -> pl.Series:
    return texts.to_frame().select(plain_number(pl.col(texts.name))).to_series()


def _values(name: str, raw: pl.DataFrame, table: ItemTable) -> pl.Expr:
    """A column as List(String) or Float64."""
    column, kind = pl.col(name), raw.schema[name]
    if kind.is_float() or kind.is_decimal() or name in table.numbers:
        return _numbers(name, raw, table.path)
    if isinstance(kind, (pl.List, pl.Array)):
        inner = kind.inner
        if inner.is_integer() or inner == pl.Boolean or inner in TEXTS:
            values = column.cast(pl.List(inner)).list.eval(_text(pl.element()))
            return values.list.drop_nulls().list.unique().fill_null([])
    elif kind in TEXTS and table.value_separator:
        values = column.cast(pl.String).str.split(table.value_separator).list.eval(_text(pl.element()))
        return values.list.drop_nulls().list.unique().fill_null([])
    elif kind.is_integer() or kind in (*TEXTS, pl.Boolean):
        return pl.concat_list(_text(column)).list.drop_nulls()
    raise DataError(
        f"column {name!r} of {table.path} has type {kind}; expected numbers, text, or lists of whole numbers or text: "
        "name the columns to read with --items-fields"
    )


def _has_exact(kind: pl.DataType) -> bool:
    return kind == pl.Boolean or kind.is_integer()


def _exact(name: str, raw: pl.DataFrame) -> pl.Expr:
    """A column of whole numbers, or of true and false, as it is; numbers beyond int64 are unknown."""
    column = pl.col(name)
    return column if raw.schema[name] == pl.Boolean else column.cast(pl.Int64, strict=False)


def _text(column: pl.Expr) -> pl.Expr:
    text = column.cast(pl.String).str.strip_chars()
    return pl.when(text.str.len_bytes() > 0).then(text)


def _numbers(name: str, raw: pl.DataFrame, path: Path) -> pl.Expr:
    column, kind = pl.col(name), raw.schema[name]
    if not (kind.is_numeric() or kind == pl.String):
        raise DataError(f"column {name!r} of {path} has type {kind}; expected numbers: leave it out of --items-numbers")
    number = (column.str.strip_chars() if kind == pl.String else column).cast(pl.Float64, strict=False)
    finite = pl.when(number.is_finite()).then(number)
    if raw.select(finite.is_null().all() & column.is_not_null().any()).item():
        example = raw[name].drop_nulls()[0]
        raise DataError(f"column {name!r} of {path} has no number, but {example!r}; leave it out of --items-numbers")
    return finite
