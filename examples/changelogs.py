"""The ChangeLogs of GNU as an interaction log: developers are users, files are items, a developer's day is a basket.

    python -m examples.changelogs FOLDER --out build/logs/gnu

docs/logs.md says where the ChangeLogs come from, and what to do with the files that this writes.
"""

from __future__ import annotations

import hmac
import posixpath
import re
import secrets
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from examples.changelog_format import decode, parse
from nann.errors import ConfigError, DataError, NannError

console, output = Console(stderr=True), Console()
KEY_CHARACTERS = 16
_EPOCH = date(1970, 1, 1).toordinal()
_VERSION = re.compile(r"-\d[\d.]*$")


@dataclass
class Changes:
    """What was read. A change that stands in several ChangeLogs is here several times.

    Attributes:
        developers: hash -> number of the developer, from 0.
        paths: path of a file in its source tree -> number of the file, from 0.
        trees: for each file, the names of the source trees whose ChangeLogs name it.
        user, code, day: one element a change: numbers of developer and file, and days since 1970.
        files: how many ChangeLogs were read.
        not_understood: FILE:LINE of each header and entry that was not understood.
    """

    developers: dict[str, int] = field(default_factory=dict)
    paths: dict[str, int] = field(default_factory=dict)
    trees: list[set[str]] = field(default_factory=list)
    user: array[int] = field(default_factory=lambda: array("i"))
    code: array[int] = field(default_factory=lambda: array("i"))
    day: array[int] = field(default_factory=lambda: array("i"))
    files: int = 0
    not_understood: list[str] = field(default_factory=list)

    def add(self, file: Path, tree: Path, identify: Callable[[str], str]) -> None:
        """Reads a ChangeLog of a source tree."""
        parsed = parse(decode(file.read_bytes()), file.parent.relative_to(tree).as_posix(), identify)
        self.files += 1
        self.not_understood += [f"{file.relative_to(tree.parent)}:{line}" for line in parsed.not_understood]
        for change in parsed.changes:
            code = self.paths.setdefault(change.path, len(self.paths))
            if code == len(self.trees):
                self.trees.append(set())
            self.trees[code].add(_VERSION.sub("", tree.name))
            for developer in change.developers:
                self.user.append(self.developers.setdefault(developer, len(self.developers)))
                self.code.append(code)
                self.day.append(change.day.toordinal() - _EPOCH)


def hasher(key: bytes) -> Callable[[str], str]:
    """A function that gives 16 hexadecimal digits for a name: which, nobody can compute without the key."""
    return lambda name: hmac.digest(key, name.encode(), "sha256").hex()[:16]


def read_trees(folder: Path, identify: Callable[[str], str]) -> Changes:
    """Reads all ChangeLogs of the source trees in a folder; each folder in it is a source tree.

    Raises:
        DataError: if there are none.
    """
    trees = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = [(file, tree) for tree in trees for file in sorted(tree.rglob("ChangeLog*")) if file.is_file()]
    if not found:
        raise DataError(
            f"{folder} holds no folder with a file ChangeLog; expected one folder for each source tree: unpack the "
            "tarballs of the packages there, as docs/logs.md shows"
        )
    changes = Changes()
    for file, tree in track(found, "Reading ChangeLogs", console=console):
        changes.add(file, tree, identify)
    return changes


def make_log(changes: Changes, max_basket: int | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The log, and the table of its items.

    Args:
        changes: what was read.
        max_basket: leave out the days on which a developer changed more files; None: keep all.

    Returns:
        The log by time, each change once: `user` (String), `item` (Int64, from 1), `time` (Date), `basket` (Int64,
        from 1) and `category` (String, the item's directory). The items by number: `item`, `name` (the path),
        `directory`, `folders` (List: the directory and those around it), `type`, `projects` (List), `words` (List).

    Raises:
        DataError: if no change is left.
    """
    rows = pl.DataFrame({key: pl.Series(getattr(changes, key), dtype=pl.Int32) for key in ("user", "code", "day")})
    rows = rows.unique().filter(pl.len().over("user", "day") <= (max_basket or rows.height))
    if not rows.height:
        raise DataError(
            f"no change is left of {len(changes.user):,} in {changes.files:,} ChangeLogs; expected entries like "
            "`* file.c: What changed.` below a day and a name: look at the files, or raise --max-basket"
        )
    items = _items(changes).join(rows.select("code").unique(), on="code", how="semi").sort("name")
    items = items.with_row_index("item", offset=1).cast({"item": pl.Int64})
    names = pl.DataFrame({"hash": list(changes.developers)}).with_row_index("user").cast({"user": pl.Int32})
    log = (
        rows.join(items.select("code", "item", "directory"), on="code")
        .join(names, on="user")
        .sort("day", "hash", "item")
        .with_columns((pl.struct("day", "hash").rle_id() + 1).cast(pl.Int64).alias("basket"))
    )
    columns = pl.col("hash").alias("user"), "item", pl.col("day").cast(pl.Date).alias("time")
    return log.select(*columns, "basket", pl.col("directory").alias("category")), items.drop("code")


def _items(changes: Changes) -> pl.DataFrame:
    """All files, one row each, with `code`, the number of the file, and attributes that are in its path."""
    paths = list(changes.paths)
    directories = [posixpath.dirname(path) for path in paths]
    names = [posixpath.splitext(posixpath.basename(path)) for path in paths]
    return pl.DataFrame(
        {
            "name": paths,
            "directory": [directory or "." for directory in directories],
            "folders": [_folders(directory) for directory in directories],
            "type": [suffix or stem for stem, suffix in names],
            "projects": [sorted(trees) for trees in changes.trees],
            "words": [sorted(set(re.findall(r"[a-z0-9]{2,}", stem.lower()))) for stem, _ in names],
            "code": pl.int_range(len(paths), dtype=pl.Int32, eager=True),
        },
        schema_overrides={"folders": pl.List(pl.String), "words": pl.List(pl.String)},
    )


def _folders(directory: str) -> list[str]:
    parts = directory.split("/") if directory else []
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of unpacked source trees, one folder each.")],
    out: Annotated[Path, typer.Option(help="Folder for log.parquet and items.parquet.")] = Path("build/logs/gnu"),
    key: Annotated[
        str | None,
        typer.Option(
            help=f"Secret of at least {KEY_CHARACTERS} characters that developers are hashed with: the same key gives "
            "the same users. Default: a random one, which is not kept.",
            show_default=False,
        ),
    ] = None,
    max_basket: Annotated[
        int | None,
        typer.Option(help="Leave out days on which a developer changed more files, such as for a new licence.", min=1),
    ] = None,
) -> None:
    """Read GNU ChangeLogs into log.parquet and items.parquet, for `nann prepare log`.

    Names and mail addresses are hashed while they are read. They are neither written nor printed.
    """
    if key is not None and len(key) < KEY_CHARACTERS:
        raise ConfigError(f"--key has {len(key)} characters; expected at least {KEY_CHARACTERS}: names can be guessed")
    changes = read_trees(folder, hasher(key.encode() if key else secrets.token_bytes(32)))
    log, items = make_log(changes, max_basket)
    out.mkdir(parents=True, exist_ok=True)
    log.write_parquet(out / "log.parquet")
    items.write_parquet(out / "items.parquet")
    _show(changes, log, out)


def _show(changes: Changes, log: pl.DataFrame, out: Path) -> None:
    table = Table(title=f"ChangeLogs in {out}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    by_user = log["user"].value_counts(sort=True)["count"].to_numpy()
    figures = {
        "ChangeLogs read": changes.files,
        "events": log.height,
        "developers": len(by_user),
        "items": log["item"].n_unique(),
        "baskets": log["basket"].n_unique(),
        "categories": log["category"].n_unique(),
        "headers and entries not understood": len(changes.not_understood),
    }
    for label, count in figures.items():
        table.add_row(label, f"{count:,}")
    repeats = 1 - log.select("user", "item").n_unique() / log.height
    table.add_row("repeats (the developer changed the file before)", f"{repeats:.1%}")
    table.add_row("events of the 100 most active developers", f"{by_user[:100].sum() / log.height:.1%}")
    table.add_row("events of the median developer", f"{np.median(by_user):.0f}")
    table.add_row("first and last day", f"{log.item(0, 'time')} to {log.item(-1, 'time')}")
    output.print(table)
    for place in changes.not_understood[:3]:
        output.print(f"not understood: {place}", markup=False, highlight=False)


if __name__ == "__main__":
    try:
        app = typer.Typer(pretty_exceptions_enable=False)  # they show local variables, and so names
        app.command()(main)
        app()
    except (NannError, OSError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
