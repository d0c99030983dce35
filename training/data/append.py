"""Adds newer events to a prepared data set: the log as it was and what happened since, prepared together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl

from nann.errors import DataError

from .log_source import LogSource
from .numbering import collect
from .prepare import EVENTS_FILE, ITEMS_FILE, USERS_FILE, prepare
from .prepared import read_manifest
from .protocol import NO_TARGET, Protocol
from .rows import Appended, InteractionLog, RowCounts
from .times import shown_time


def source_of(folder: Path, files: Sequence[Path], items: Path | None, profile: Path | None) -> LogSource:
    """Files to read as the log of a prepared data set was.

    Args:
        folder: the data set.
        files: what to read.
        items: a newer table of items; None: the one the data set was made with, if any, as it is now.
        profile: the same for users.

    Raises:
        DataError: if the folder is no prepared data set, or keeps no events.
    """
    manifest = read_manifest(folder)
    if not (folder / EVENTS_FILE).exists():
        raise DataError(f"{folder} has no {EVENTS_FILE}; only data sets of `nann prepare log` can be appended to")
    source = LogSource.of_settings(tuple(files), manifest["name"], manifest["reader"])
    kept = pl.scan_parquet(folder / EVENTS_FILE).collect_schema()
    rules = source.rules  # text, so that the tables' ids are read as text too
    rules = replace(rules, item_ids="text") if kept["item"] == pl.String else rules
    rules = replace(rules, user_ids="text") if kept["user"] == pl.String else rules
    source = replace(source, rules=rules)
    for name, path in (("items", items), ("profile", profile)):
        table = getattr(source, name)
        if path is not None and table is None:
            raise DataError(f"{folder} was made without --{name}; prepare it again with the whole log to add them")
        if path is not None:
            source = replace(source, **{name: replace(table, path=path)})
    return source


def append_log(
    read: Callable[[Path], InteractionLog], folder: Path, on_step: Callable[[str], None] = lambda step: None
) -> dict[str, Any]:
    """Reads a log, adds its rows to those of a prepared data set, and prepares it again by the same protocol.

    Rows older than the newest one of the data set are left out and counted, and so are rows of its newest time that it
    has. Its items keep their numbers. The folder is replaced at the end, as a whole.

    Args:
        read: gives the log; its argument is a folder for intermediate files.
        folder: the data set.
        on_step: called with a description before each long step.

    Returns:
        The new manifest.

    Raises:
        DataError: if no row is newer, or the items' ids are of another kind.
    """
    manifest = read_manifest(folder)
    protocol = Protocol(**manifest["protocol"])
    return prepare(
        lambda scratch: _joined(folder, manifest, read(scratch)), folder, protocol, on_step, manifest["name"]
    )


def _joined(folder: Path, manifest: Mapping[str, Any], log: InteractionLog) -> InteractionLog:
    old, new = _of_one_kind(pl.scan_parquet(folder / EVENTS_FILE), log)
    older = known = 0
    if "time" in manifest["reader"]["columns"]:
        newest = collect(old.select(pl.col("time").max())).item()
        older, at_newest, later = (
            collect(new.filter(when).select(pl.len())).item()
            for when in (pl.col("time") < newest, pl.col("time") == newest, pl.col("time") > newest)
        )
        # A file that overlaps the one before has some of its rows again.
        keys = [key for key in ("user", "item", "basket") if key in new.collect_schema()]
        same = pl.col("time") == newest
        unknown = collect(new.filter(same)).join(collect(old.filter(same)), on=keys, how="anti", maintain_order="left")
        known = at_newest - unknown.height
        if not unknown.height + later:
            raise DataError(
                f"none of the {older + at_newest:,} rows is newer than the newest one of {folder}, "
                f"{shown_time(newest)} UTC: {older:,} are older and {known:,} are in it; nothing is appended"
            )
        new = pl.concat([unknown.lazy(), new.filter(pl.col("time") > newest)])
    items = pl.read_parquet(folder / ITEMS_FILE, columns=["item_id"])["item_id"]
    return replace(
        log,
        sources=(*manifest["sources"], *log.sources),
        rows=pl.concat([old, new]),
        counts=_sum(manifest["rows"], log.counts),
        appended=Appended(items, _users_of(folder), older, known),
    )


def _users_of(folder: Path) -> pl.DataFrame:
    """The users of a data set, and what they are for: one that trains and validates is for validation."""
    users = pl.read_parquet(folder / USERS_FILE)
    validates, trains = pl.col("validation_first") != NO_TARGET, pl.col("train_end") > pl.col("first")
    role = pl.when(validates).then(pl.lit("validation")).when(trains).then(pl.lit("train")).otherwise(pl.lit("test"))
    return users.select(pl.col("user_id").alias("user"), role.alias("role"))


def _of_one_kind(old: pl.LazyFrame, log: InteractionLog) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    before, now = old.collect_schema(), log.rows.collect_schema()
    if before["item"] == pl.Int64 and now["item"] == pl.String:
        raise DataError(
            f"the data set's item ids are numbers, and the log's are {log.settings['found']['item ids']}; append a "
            "log of numbers, or prepare everything again with `nann prepare log --item-ids text`"
        )
    texts = [pl.col(key).cast(pl.String) for key in before if before[key] != now[key]]
    return old.with_columns(texts), log.rows.select(list(before)).with_columns(texts)


def _sum(before: dict[str, Any], now: RowCounts) -> RowCounts:
    added = {key: before[key] + value for key, value in asdict(now).items() if isinstance(value, int)}
    reasons = Counter(before["bad_by_reason"]) + Counter(now.bad_by_reason)
    examples = (*before["bad_examples"], *now.bad_examples)
    return RowCounts(**added, bad_by_reason=dict(reasons.most_common()), bad_examples=examples[-5:])
