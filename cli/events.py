"""`nann events`: behaviours into a store of histories."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from nann.errors import ConfigError
from nann.histories import HISTORY_LIMIT

from . import log_options
from .log_options import COLUMNS, panel_option, text_format
from .prepare_output import MaxBadShareOption, names_of
from .prepared_summary import say
from .support import JsonOption, console, print_json

if TYPE_CHECKING:
    from nann.histories import Events, Histories

    from ..training.data.canonical_rows import LogColumns, LogRules
    from ..training.data.csv_rows import TextFormat

_STANDARD_INPUT = Path("-")
_USERS_AT_ONCE = 2_000
"""Of a step of the progress."""
_TIMEOUT_S = 30.0


def events(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Files, folders or patterns of Parquet, CSV or JSON lines; - for standard input; or one folder of "
            "histories, to be copied with the profiles.",
            metavar="FILE",
        ),
    ],
    to: Annotated[
        str, typer.Option(help="The store: redis://HOST:6379/0, or a folder, which is made if it is not there.")
    ],
    user: log_options.UserOption = "user",
    item: log_options.ItemOption = "item",
    time: Annotated[str, panel_option(COLUMNS, "The time: a number, a timestamp or ISO 8601 text.")] = "time",
    basket: log_options.BasketOption = None,
    columns: log_options.HeaderOption = "",
    event_column: log_options.EventColumnOption = None,
    types: log_options.EventsOption = "",
    value_column: log_options.ValueColumnOption = None,
    min_value: log_options.MinValueOption = None,
    item_ids: log_options.ItemIdsOption = "auto",
    time_format: log_options.TimeFormatOption = None,
    null: log_options.NullOption = None,
    separator: log_options.SeparatorOption = "",
    encoding: log_options.EncodingOption = "utf-8",
    quote: log_options.QuoteOption = '"',
    escape: log_options.EscapeOption = "",
    merge_repeats: Annotated[
        bool,
        typer.Option("--merge-repeats", help="Leave out repeats as `nann prepare log --merge-repeats` does."),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Behaviours of a user that are kept, the newest. Default: {HISTORY_LIMIT}, or what a folder that is "
            "there was made with.",
            show_default=False,
        ),
    ] = None,
    max_bad_share: MaxBadShareOption = 0.01,
    json: JsonOption = False,
) -> None:
    """Add behaviours to a store of histories, which `nann serve --histories` reads.

    Rows are read as `nann prepare log` reads them, and stored in the order in which a model is trained on them. The
    same rows may be sent again: what is stored already (user, item and time) is not stored twice. Older rows may come
    after newer ones.

    Example: nann events today.parquet --to redis://127.0.0.1:6379/0 --user uid --item sku --time at
    """
    from ..training.data.canonical_rows import LogColumns, LogRules

    start = clock.perf_counter()
    store, kept = _opened(to, limit)
    read, counts = _copied(files) or _read(
        files,
        LogColumns(user, item, time, None, basket, event_column, value_column),
        LogRules(names_of(types), min_value, time_format, item_ids),
        text_format(separator, columns, encoding, quote, escape, null),
        merge_repeats,
        max_bad_share,
    )
    read_s, start = clock.perf_counter() - start, clock.perf_counter()
    added = _append(store, read)
    write_s, total = clock.perf_counter() - start, len(read.times)
    store.close()
    body = {
        **counts,
        "users": len(read.users),
        "events": total,
        "added": added,
        "read_s": round(read_s, 3),
        "write_s": round(write_s, 3),
        "events_per_s": round(total / max(1e-9, read_s + write_s)),
    }
    say(
        f"{added:,} of {total:,} behaviours of {len(read.users):,} users are new in {to}; the others are there "
        f"already, or older than the newest {kept:,} of a user; {body['events_per_s']:,} a second"
    )
    if cut := counts.get("cut_last_lines"):
        say(f"{cut} {'file ends' if cut == 1 else 'files end'} within a line, which is left out: send the rest again")
    if json:
        print_json(body)


def _opened(to: str, limit: int | None) -> tuple[Histories, int]:
    """The store, made if it is a new folder, and how many behaviours of a user it keeps."""
    from nann.histories import NO_EVENTS, FileHistories
    from nann.histories.file_histories import write_histories

    from ..python_backend.histories.opening import is_folder, open_histories

    folder = Path(to)
    if is_folder(to) and not (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        write_histories(folder, NO_EVENTS, limit or HISTORY_LIMIT)
    store = open_histories(to, _TIMEOUT_S, limit or HISTORY_LIMIT)
    kept = store.limit if isinstance(store, FileHistories) else limit or HISTORY_LIMIT
    if kept != (limit or kept):
        raise ConfigError(
            f"--limit is {limit:,}, and {to} was made with {kept:,}; leave --limit out, or copy the folder: `nann "
            f"events {to} --to NEW_FOLDER --limit {limit}`"
        )
    return store, kept


def _copied(files: list[Path]) -> tuple[Events, dict[str, int]] | None:
    """The content of a folder of histories, if that is what is given."""
    from nann.histories import FileHistories, is_histories

    if not any(map(is_histories, files)):
        return None
    if len(files) > 1:
        raise ConfigError(f"{len(files)} files are given, and one is a folder of histories; expected it alone")
    return FileHistories(files[0]).events(), {}


def _read(
    files: list[Path],
    columns: LogColumns,
    rules: LogRules,
    text: TextFormat,
    merge_repeats: bool,
    max_bad_share: float,
) -> tuple[Events, dict[str, int]]:
    from nann.histories import NO_EVENTS

    from ..training.data.histories import read_events
    from ..training.data.log_source import LogSource

    with tempfile.TemporaryDirectory() as scratch, console.status("Reading ..."):
        paths = [_spooled(path, Path(scratch)) for path in files]
        if len(paths) == 1 and files[0] == _STANDARD_INPUT and not paths[0].stat().st_size:
            return NO_EVENTS, {}  # what feeds it had nothing to say
        (parts := Path(scratch) / "parts").mkdir()
        source = LogSource(tuple(paths), columns, "log", text, rules)
        return read_events(source, parts, merged=merge_repeats, max_bad_share=max_bad_share, say=say)


def _spooled(path: Path, scratch: Path) -> Path:
    """A file as it is; standard input as a file."""
    if path != _STANDARD_INPUT:
        return path
    spooled = scratch / "standard input"
    with spooled.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
    return spooled


def _append(store: Histories, events: Events) -> int:
    from nann.histories import FileHistories

    users = len(events.users)
    step = max(1, users) if isinstance(store, FileHistories) else _USERS_AT_ONCE  # a folder is written as a whole
    added = 0
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Writing", total=users)
        for first in range(0, users, step):
            end = min(first + step, users)
            added += store.append(events.some(first, end))
            progress.update(task, completed=end)
    return added
