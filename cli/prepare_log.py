"""`nann prepare log`: from any log, by naming its columns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nann.errors import ConfigError

from . import log_options
from .log_options import COLUMNS, panel_option, text_format
from .prepare_output import DATA_FOLDER, FilesArgument, MaxBadShareOption, OutOption, names_of, write
from .prepared_summary import say, show_sample
from .protocol_options import protocol_of, with_protocol_options
from .support import JsonOption, print_json

if TYPE_CHECKING:
    from ..training.data.log_source import LogSource
    from ..training.data.rows import InteractionLog

_SAMPLE_ROWS = 100_000
_WITH_APPEND = {"files", "append", "out", "name", "items", "profile", "max_bad_share", "dry_run", "json_output"}
"""Options that may be given with --append; the data set has the others."""


_ITEMS, _PROFILE = "Item attributes", "User profiles"


@with_protocol_options()
def log(
    context: typer.Context,
    files: FilesArgument,
    out: OutOption = None,
    name: Annotated[str, typer.Option(help="Name of the data set.")] = "log",
    append: Annotated[
        bool,
        typer.Option(
            "--append",
            help="Add newer events to the data set in --out, read as it was; its items keep their numbers.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read a sample, print what is found, write nothing.")
    ] = False,
    user: log_options.UserOption = "user",
    item: log_options.ItemOption = "item",
    time: Annotated[
        str,
        panel_option(
            COLUMNS, "The time: a number, a timestamp or ISO 8601 text; 'none' if the rows are in order of time."
        ),
    ] = "time",
    category: Annotated[str | None, panel_option(COLUMNS, "The item's category; its most frequent one counts.")] = None,
    basket: log_options.BasketOption = None,
    columns: log_options.HeaderOption = "",
    event_column: log_options.EventColumnOption = None,
    events: log_options.EventsOption = "",
    value_column: log_options.ValueColumnOption = None,
    min_value: log_options.MinValueOption = None,
    item_ids: log_options.ItemIdsOption = "auto",
    time_format: log_options.TimeFormatOption = None,
    null: log_options.NullOption = None,
    separator: log_options.SeparatorOption = "",
    encoding: log_options.EncodingOption = "utf-8",
    quote: log_options.QuoteOption = '"',
    escape: log_options.EscapeOption = "",
    profile: Annotated[Path | None, panel_option(_PROFILE, "Table of user profiles, one row per user.")] = None,
    profile_user: Annotated[str | None, panel_option(_PROFILE, "Its column with the user. Default: --user.")] = None,
    profile_fields: Annotated[
        str, panel_option(_PROFILE, "Its columns that are fields, separated by commas. Default: all.")
    ] = "",
    profile_numbers: Annotated[
        str,
        panel_option(
            _PROFILE, "Columns to read as numbers, cut into at most 16 bins. Floats always are; all else is a category."
        ),
    ] = "",
    items: Annotated[Path | None, panel_option(_ITEMS, "Table with one row per item.")] = None,
    items_id: Annotated[str | None, panel_option(_ITEMS, "Its column with the item. Default: --item.")] = None,
    items_fields: Annotated[
        str,
        panel_option(
            _ITEMS,
            "Columns that are attributes, separated by commas: text and whole numbers are categories, floats are "
            "numbers, lists are several values. Default: all but the names.",
        ),
    ] = "",
    items_numbers: Annotated[
        str, panel_option(_ITEMS, "Columns to read as numbers, though they hold text or whole numbers.")
    ] = "",
    items_name: Annotated[
        str | None, panel_option(_ITEMS, "Column with the item's name, to be shown to people.")
    ] = None,
    items_separator: Annotated[
        str, panel_option(_ITEMS, "Between several values in a text; '' if a text is one value.")
    ] = "|",
    max_bad_share: MaxBadShareOption = 0.01,
    json_output: JsonOption = False,
    **protocol: Any,
) -> None:
    """Prepare any CSV, JSON lines or Parquet log by naming its columns: files, folders or patterns, plain or packed.

    Example: nann prepare log events.parquet --user uid --item sku --time at --basket session_id --name shop

    With attributes of the items: nann prepare log events.parquet --items items.parquet --items-numbers price,year

    What happened since: nann prepare log tuesday.parquet --append --out build/data/shop
    """
    from ..training.data.append import append_log, source_of
    from ..training.data.canonical_rows import LogColumns, LogRules
    from ..training.data.item_table import ItemTable
    from ..training.data.log_source import LogSource, ProfileTable
    from ..training.data.prepare import prepare

    folder = out or DATA_FOLDER / name
    if append:
        _check_alone(context)
        source = source_of(folder, files, items, profile)
        if dry_run:
            _sample(source, max_bad_share, json_output)
            return
        read = _reader(source, max_bad_share)
        write(lambda step: append_log(read, folder, step), folder, json_output)
        return
    chosen = (profile_user or user, names_of(profile_fields), names_of(profile_numbers))
    if profile is None and chosen != (user, (), ()):
        raise ConfigError("a --profile- option is given without a table of users; give the table with --profile")
    names = (items_id or item, names_of(items_fields), names_of(items_numbers), items_name)
    if items is None and names != (item, (), (), None):
        raise ConfigError("an --items- option is given without a table of items; give the table with --items")
    source = LogSource(
        tuple(files),
        LogColumns(user, item, None if time == "none" else time, category, basket, event_column, value_column),
        name,
        text_format(separator, columns, encoding, quote, escape, null),
        LogRules(names_of(events), min_value, time_format, item_ids),
        None if profile is None else ProfileTable(profile, *chosen),
        None if items is None else ItemTable(items, *names, items_separator),
    )
    if dry_run:
        _sample(source, max_bad_share, json_output)
        return
    applied = protocol_of(protocol)
    if source.columns.time is None and applied.split_time is not None:
        raise ConfigError("a time split is asked for a log without times; leave out --time none, or split otherwise")
    read = _reader(source, max_bad_share)
    write(lambda step: prepare(read, folder, applied, step, name), folder, json_output)


def _check_alone(context: typer.Context) -> None:
    """Raises ConfigError if an option is given that the data set itself has."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if others := [f"--{name.replace('_', '-')}" for name in given if name not in _WITH_APPEND]:
        raise ConfigError(
            f"{', '.join(others)} with --append, which reads a log as the data set in --out was; leave it out"
        )


def _reader(source: LogSource, max_bad_share: float, max_rows: int | None = None) -> Callable[[Path], InteractionLog]:
    from ..training.data.custom_log import read_log

    def read(scratch: Path) -> InteractionLog:
        return read_log(
            source.files,
            source.columns,
            scratch,
            name=source.name,
            text=source.text,
            rules=source.rules,
            profile=source.profile,
            items=source.items,
            max_bad_share=max_bad_share,
            max_rows=max_rows,
            say=say,
        )

    return read


def _sample(source: LogSource, max_bad_share: float, json_output: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        log = _reader(source, max_bad_share, _SAMPLE_ROWS)(Path(scratch))
        summary = show_sample(log)
    if json_output:
        print_json(summary)
