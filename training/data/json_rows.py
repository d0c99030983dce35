"""JSON lines as rows: one object a line, its values as text or lists of text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import polars as pl

NOT_JSON = "no JSON object"
LIST_IN_COLUMN, OBJECT_IN_COLUMN = "a list in column", "an object or a nested list in column"


def json_schema(lines: Iterable[str]) -> dict[str, pl.DataType]:
    """The columns of some lines: List(String) if a value is a list, else String; what is no object is skipped."""
    schema: dict[str, pl.DataType] = {}
    for line in lines:
        try:
            body = json.loads(line)
        except ValueError:
            continue
        for name, value in body.items() if isinstance(body, dict) else ():
            is_list = isinstance(value, list) or schema.get(name) == pl.List(pl.String)
            schema[name] = pl.List(pl.String) if is_list else pl.String()
    return schema


def json_rows(lines: pl.Series, schema: Mapping[str, pl.DataType]) -> pl.Series:
    """Each line, String, as a struct of the schema's columns; null for a line that can't be read so."""
    try:
        rows: pl.Series = lines.str.json_decode(pl.Struct(dict(schema)))
    except pl.exceptions.PolarsError:
        if len(lines) == 1:
            return pl.Series([None], dtype=pl.Struct(dict(schema)))
        # One bad line fails the whole series: it is searched for by halves.
        middle = len(lines) // 2
        rows = json_rows(lines[:middle], schema).append(json_rows(lines[middle:], schema))
    return rows


def unread_lines(lines: pl.Series, rows: pl.Series, schema: Mapping[str, pl.DataType]) -> pl.Series:
    """Why `json_rows` could not read lines, String; null for those that it could."""
    places = rows.is_null().arg_true()
    reasons = [_why(line, schema) for line in lines.gather(places)]
    found: pl.Series = pl.repeat(None, len(lines), dtype=pl.String, eager=True).scatter(places, reasons)
    return found


def _why(line: str, schema: Mapping[str, pl.DataType]) -> str:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return NOT_JSON
    for name, kind in schema.items() if isinstance(body, dict) else ():
        value = body.get(name)
        if any(isinstance(each, (dict, list)) for each in (value if isinstance(value, list) else [value])):
            return f"{OBJECT_IN_COLUMN} {name!r}; expected numbers or text"
        if isinstance(value, list) and kind == pl.String():
            return f"{LIST_IN_COLUMN} {name!r}, which has none in the first lines"
    return NOT_JSON
