"""Items in files, as `nann items` sends them to a server."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nann.errors import ConfigError

ID, ROW, LIGHT, VECTOR = "id", "row", "light", "vector"
"""Columns that are no attributes: the item's id, and its vectors."""
_FLAGS = {"true": True, "false": False}
_EXPECTED = "expected JSON lines (.jsonl), CSV with a header (.csv) or Parquet (.parquet)"


def read_items(path: Path, types: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The rows of a file, one item each: `ID`, `ROW`, `LIGHT`, `VECTOR` and attributes by name.

    Args:
        path: JSON lines, CSV or Parquet, by its ending.
        types: of the server's attributes, for CSV, which has none. An empty field is left out there: no change.

    Raises:
        ConfigError: naming the line and what is wrong with it.
    """
    readers = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'!r}; {_EXPECTED}")
    if not path.is_file():
        raise ConfigError(f"{path} is missing; {_EXPECTED}")
    try:
        for number, row in enumerate(reader(path, types), 1):
            yield checked_item(row, f"item {number} of {path}")
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"{path} can't be read: {error}; {_EXPECTED}") from error


def checked_item(row: dict[str, Any], where: str) -> dict[str, Any]:
    """The row of an item, if it has an id: a text without spaces around it, or a whole number.

    Raises:
        ConfigError: beginning with `where`.
    """
    item_id = row.get(ID)
    if isinstance(item_id, bool) or not isinstance(item_id, (int, str)) or str(item_id) != str(item_id).strip():
        raise ConfigError(
            f"{where} has the {ID} {item_id!r}; expected a text without spaces around it, or a whole number"
        )
    return row


def _json_lines(path: Path, _: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"line {number} of {path} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ConfigError(f"line {number} of {path} is {line.strip()[:40]}; expected a JSON object")
            yield row


def _csv(path: Path, types: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream, strict=True):
            if None in row:
                raise ConfigError(f"item {row.get(ID)!r} of {path} has more fields than the header has names")
            try:
                yield {name: _field(name, text, types) for name, text in row.items() if text}
            except ValueError as error:
                raise ConfigError(f"item {row.get(ID)!r} of {path}: {error}") from error


def _field(name: str, text: str, types: Mapping[str, str]) -> Any:
    kind = "text" if name == ID else "vector" if name in (ROW, LIGHT, VECTOR) else types.get(name, "category")
    if kind == "flag":
        if text.lower() not in _FLAGS:
            raise ValueError(f"{name} is {text!r}; expected true or false")
        return _FLAGS[text.lower()]
    if kind == "vector":
        return [float(number) for number in text.split()]
    if kind == "categories":
        return text.split("|")
    return {"integer": int, "number": float}.get(kind, str)(text)


def _parquet(path: Path, _: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    from ..training.data.tables import parquet_rows

    return parquet_rows(path)
