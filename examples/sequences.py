"""Users' item sequences, one user a line, as an interaction log.

    python -m examples.sequences toys.txt.gz --attributes toys_item2attributes.json.gz --out build/logs/toys

Many repositories of papers on sequential recommendation hold their data like this, S3-Rec and those built on it among
them: `user item item ...`, oldest first, without times; and `{item: [attribute, ...]}` as JSON. docs/logs.md goes on.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape

from nann.errors import DataError, NannError

console, output = Console(stderr=True), Console()
_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_ITEM = (1 << 63) - 1


def read_sequences(path: Path) -> pl.DataFrame:
    """Reads a file of sequences, UTF-8, plain or gzip; blank lines are skipped.

    Returns:
        `user` (String), `item` (Int64) and `time` (Int64), the item's position in its line from 0: seconds to read.

    Raises:
        DataError: if a line is not a user and positive whole numbers, or a user has two lines.
    """
    sequences: dict[str, list[int]] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        user, *words = line.split() or [""]
        if not user:
            continue
        items = [_item(word) for word in words]
        if not items or 0 in items:
            raise DataError(f"{path}:{number} is {line[:60]!r}; expected a user and items, which are positive numbers")
        if user in sequences:
            raise DataError(f"{path}:{number}: user {user!r} has a line before; expected one a user: join them")
        sequences[user] = items
    if not sequences:
        raise DataError(f"{path} has no line; expected one a user: user item item ...")
    items_type = {"item": pl.List(pl.Int64)}
    rows = pl.DataFrame({"user": list(sequences), "item": list(sequences.values())}, schema_overrides=items_type)
    return rows.with_columns(pl.int_ranges(pl.col("item").list.len()).alias("time")).explode("item", "time")


def read_attributes(path: Path) -> pl.DataFrame:
    """Reads attributes of items, JSON, plain or gzip.

    Returns:
        `item` (Int64, ascending) and `attributes` (List of String).

    Raises:
        DataError: if it is not an object with a list of attributes for each item.
    """
    try:
        body = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}); expected {{item: [attribute, ...]}}") from error
    found = body if isinstance(body, dict) else {"": body}
    for key, values in found.items():
        if not _item(key) or not isinstance(values, list):
            shown = f"{{{key!r}: {json.dumps(values)[:60]}}}"
            raise DataError(f"{path} holds {shown}; expected {{item: [attribute, ...]}} with items as in the sequences")
    columns = {"item": [_item(key) for key in found], "attributes": [list(map(str, v)) for v in found.values()]}
    return pl.DataFrame(columns, schema={"item": pl.Int64, "attributes": pl.List(pl.String)}).sort("item")


def _item(word: str) -> int:
    """A positive whole number that fits int64; 0: the word is none."""
    plain = word.isascii() and word.isdigit()
    return int(word) if plain and 0 < int(word[:20]) <= _LARGEST_ITEM else 0


def _text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path} is no file; expected a text or JSON file, plain or gzip")
    content = path.read_bytes()
    try:
        return (gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content).decode("utf-8")
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read ({error}); expected UTF-8, plain or gzip") from error


def main(
    sequences: Annotated[Path, typer.Argument(help="One user a line: user item item ..., oldest first.")],
    attributes: Annotated[Path | None, typer.Option(help="JSON file {item: [attribute, ...]}.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for log.parquet and items.parquet.")] = Path("build/logs/sequences"),
) -> None:
    """Write users' sequences as log.parquet and their items' attributes as items.parquet, for `nann prepare log`.

    Files may be gzip. There are no times: the position in a sequence stands for the time, in seconds.
    """
    log = read_sequences(sequences)
    items = None if attributes is None else read_attributes(attributes)
    out.mkdir(parents=True, exist_ok=True)
    log.write_parquet(out / "log.parquet")
    counts = f"{log.height:,} events, {log['user'].n_unique():,} users, {log['item'].n_unique():,} items"
    if items is not None:
        items.write_parquet(out / "items.parquet")
        known = log.select("item").unique().join(items, on="item", how="semi").height
        counts += f", {known:,} of them with attributes"
    output.print(f"{out}: {counts}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (NannError, OSError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
