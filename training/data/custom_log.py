"""Reader for any CSV, JSON lines or Parquet log, given the names of its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from nann.errors import DataError

from .canonical_rows import EVENT, LogColumns, LogRules, RowReader, exploded
from .columns import fits_int64
from .csv_rows import LINE, TextFormat
from .files import LogFile, log_files
from .id_kinds import IdKinds
from .item_table import ItemTable, read_items
from .log_source import LogSource, ProfileTable
from .profiles import UserProfiles, encode_profiles
from .rows import MAX_BAD_SHARE, InteractionLog, RowStage, mark_cut
from .sources import BATCH_BYTES
from .tables import BATCH_ROWS, Table, TableBatch, open_table, whole_table
from .times import TimeColumn, as_number, common_unit, date_form, shown_time

_SAMPLE_BYTES = 1 << 20
_SAMPLE_ROWS = 50_000
_MOST_EVENTS = 1_000
_SHOWN_EVENTS = 10

Say = Callable[[str], None]


def read_log(
    files: Sequence[Path],
    columns: LogColumns,
    scratch: Path,
    *,
    name: str = "log",
    text: TextFormat | None = None,
    rules: LogRules | None = None,
    profile: ProfileTable | None = None,
    items: ItemTable | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    max_rows: int | None = None,
    say: Say = lambda line: None,
    batch_bytes: int = BATCH_BYTES,
    batch_rows: int = BATCH_ROWS,
) -> InteractionLog:
    """Reads CSV, JSON lines (both plain or packed) and Parquet files that all have the named columns, in order.

    Users and items are numbers or text, each of one kind for the whole log. Columns of lists are exploded.

    Args:
        files: files, folders and patterns.
        columns: the log's columns.
        scratch: takes intermediate files, and must stay until the log has been used.
        name: default name of the data set.
        text: how text files are read.
        rules: which rows are kept, and how values are read.
        profile: a table of users.
        items: a table of items.
        max_bad_share: a log with a larger share of bad rows is refused.
        max_rows: reads about so many rows, a sample; None: all.
        say: called with each thing that was found out and not told.
        batch_bytes: a batch of a text file.
        batch_rows: a batch of a Parquet file.

    Raises:
        ConfigError: if the rules do not fit the columns, or the share is not valid.
        DataError: if a file can't be read or lacks a column, or the log has too many bad rows or no good one.
    """
    source = LogSource(tuple(files), columns, name, text or TextFormat(), rules or LogRules(), profile, items)
    source.rules.check(columns)
    stage, kinds = RowStage(scratch, max_bad_share), IdKinds(texts=source.rules.texts)
    tables = [open_table(file, source.text, columns.options()) for file in log_files(files)]
    found = _files_described(tables)
    reader = _row_reader(tables, columns, source.rules, found)
    for what, how in found.items():
        say(f"{what}: {how}")
    if max_rows is not None:
        batch_bytes, batch_rows = min(batch_bytes, _SAMPLE_BYTES), min(batch_rows, max_rows)
    events: Counter[str] = Counter()
    empty = 0
    for table, batch in _batches(tables, columns, batch_bytes, batch_rows):
        raw, without = exploded(batch.rows, _lists(batch.rows.schema))
        empty += without
        rows = reader.read(raw, table.file.path)
        _count_events(rows, events)
        kinds.see(stage.add(table.file.label, mark_cut(rows) if batch.unterminated else rows), table.file.label)
        if max_rows is not None and stage.read >= max_rows:
            break
    after = kinds.described() if stage.has_rows else {}
    if source.rules.events and stage.read:
        after["events"] = _events_described(events, source.rules, sampled=max_rows is not None)
    for what, how in after.items():
        say(f"{what}: {how}")
    good, counts = stage.finish()
    said = kinds.remarks()
    said += [f"{empty:,} rows have empty lists, and so no behaviours"] if empty else []
    files_read = tuple(str(table.file.path) for table in tables)
    log = InteractionLog(name, files_read, kinds.applied(good), counts, conversions=tuple(said), appendable=True)
    return _with_tables(log, source, found | after)


def _batches(
    tables: Sequence[Table], columns: LogColumns, batch_bytes: int, batch_rows: int
) -> Iterator[tuple[Table, TableBatch]]:
    for table in tables:
        for batch in table.batches(list(columns.named().values()), batch_bytes, batch_rows):
            yield table, batch


def _with_tables(log: InteractionLog, source: LogSource, found: dict[str, str]) -> InteractionLog:
    """The log with what the tables of users and items say, and the settings."""
    profiles = None if source.profile is None else _read_profiles(source.profile, log.rows, source.text)
    item_type = log.rows.collect_schema()["item"]
    values = None if source.items is None else read_items(source.items, source.text, item_type)
    names = values.frame.lazy().select("item", "name") if values and "name" in values.frame.columns else None
    said = [line for part in (profiles, values) if part is not None for line in part.conversions]
    return replace(
        log,
        items=names,
        profiles=profiles,
        attributes=values,
        settings={**source.settings(), "found": found},
        conversions=(*said, *log.conversions),
    )


def _row_reader(tables: Sequence[Table], columns: LogColumns, rules: LogRules, found: dict[str, str]) -> RowReader:
    """The reader; what it has to find out is told from the first rows, and added to `found`."""
    named = columns.named()
    types: dict[str, pl.DataType] = {
        key: pl.Int64() if all(fits_int64(table.schema[name]) for table in tables) else pl.String()
        for key, name in named.items()
        if key in ("user", "item", "category", "basket")
    }
    if columns.time is None:
        found["time"] = "none: the order of the rows"
        return RowReader(columns, rules, types, None)
    return RowReader(columns, rules, types, *_time_column(tables, columns.time, rules.time_format, found))


def _time_column(
    tables: Sequence[Table], column: str, form: str | None, found: dict[str, str]
) -> tuple[TimeColumn, str]:
    """How times are read, and why in that unit, as `unit_example` of the reader; from the first rows."""
    batches = ((table, batch) for table in tables for batch in table.batches([column], _SAMPLE_BYTES, _SAMPLE_ROWS))
    first_rows = next(batches, None)
    if first_rows is None:
        return TimeColumn(column, form=form), ""
    label, batch = first_rows[0].file.label, first_rows[1]
    raw = exploded(batch.rows, _lists(batch.rows.schema))[0].select(LINE, raw=column)
    if not form:
        _refuse_dates(raw.drop_nulls(), column, label)
    time = TimeColumn(column, "seconds" if form else common_unit(raw["raw"].alias(column)), form)
    good = raw.with_columns(time=time.microseconds(raw["raw"])).drop_nulls("time")
    if not good.height:
        return time, ""
    first, last = (shown_time(good["time"].sort()[place]) for place in (0, -1))
    found["time"] = f"{time.described(good['raw'])}, from {first} to {last} in the first {good.height:,} rows"
    numbers = good.filter(as_number(pl.col("raw"), raw.schema["raw"]).is_not_null())
    if numbers.is_empty():
        return time, f", as the first rows have no numbers but times such as {good['raw'][0]} ({label}:{good[LINE][0]})"
    return time, f", as {numbers['raw'][0]} is ({label}:{numbers[LINE][0]})"


def _refuse_dates(rows: pl.DataFrame, column: str, label: str) -> None:
    """Refuses times (`raw`) of which the numbers are dates such as 20240131."""
    number = pl.col("raw").str.contains(r"^\s*[0-9]+\s*$") if rows.schema["raw"] == pl.String else pl.lit(True)
    numbers, others = rows.filter(number), rows.filter(~number)
    if (form := date_form(numbers["raw"])) is None:
        return
    line, date = numbers.select(LINE, "raw").row(0)
    dates = f"time (column {column!r}) has dates that are written as numbers, such as {date} ({label}:{line})"
    if date_form(rows["raw"]) is None:
        line, other = others.select(LINE, "raw").row(0)
        raise DataError(
            f"{dates}, and others such as {other} ({label}:{line}); write all of them in one way, such as 2024-01-31"
        )
    raise DataError(f"{dates}, which are no times since 1970; read them with --time-format {form}")


def _lists(schema: Mapping[str, pl.DataType]) -> list[str]:
    return [name for name, kind in schema.items() if isinstance(kind, (pl.List, pl.Array))]


def _files_described(tables: Sequence[Table]) -> dict[str, str]:
    kinds = Counter(table.described for table in tables)
    found = {"files": "; ".join(f"{count:,} {kind}" for kind, count in kinds.items())}
    folders = list(dict.fromkeys(name for table in tables for name in table.file.partitions))
    return found | ({"columns of folders": ", ".join(folders)} if folders else {})


def _count_events(rows: pl.DataFrame, events: Counter[str]) -> None:
    if EVENT in rows.columns and len(events) < _MOST_EVENTS:
        events.update(dict(rows[EVENT].drop_nulls().value_counts().rows()))


def _events_described(events: Counter[str], rules: LogRules, *, sampled: bool) -> str:
    missing = [event for event in rules.events if not events[event]]
    others = [event for event in events if event not in rules.events]
    listed = [f"{event} ({events[event]:,})" for event in sorted(others, key=lambda event: (-events[event], event))]
    left_out = ", ".join(listed[:_SHOWN_EVENTS]) + (" and others" if len(listed) > _SHOWN_EVENTS else "")
    if missing and not sampled:
        raise DataError(
            f"no row has the event {missing[0]!r}; the log has {left_out or 'no other'}: name the ones to keep with "
            "--events"
        )
    kept = ", ".join(f"{event} ({events[event]:,})" for event in rules.events)
    return f"kept {kept}; left out {left_out or 'none'}"


def _read_profiles(profile: ProfileTable, rows: pl.LazyFrame, text: TextFormat) -> UserProfiles:
    options = {
        **dict.fromkeys(profile.numbers, "--profile-numbers"),
        **dict.fromkeys(profile.fields, "--profile-fields"),
        profile.user: "--profile-user",
    }
    table = open_table(LogFile.of(profile.path), text, options, beside=True)
    chosen = profile.fields or tuple(name for name in table.schema if name != profile.user)
    fields = list(dict.fromkeys([*chosen, *profile.numbers]))
    frame = whole_table(table, [profile.user, *fields], "user")
    return encode_profiles(frame, profile.user, fields, rows, str(profile.path), profile.numbers)
