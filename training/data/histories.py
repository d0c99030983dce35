"""What each user did, as a store of histories, in the order in which a model is trained on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.histories import NO_EVENTS, Events
from nann.histories.file_histories import write_histories
from nann.item_ids import MAX_ID_BYTES, TEXT, Ids

from .custom_log import read_log
from .log_source import LogSource
from .numbering import KeptUsers, collect, fits_text_id, with_order
from .profiles import UserProfiles
from .repeats import merge_repeats
from .rows import EmptyLogError, InteractionLog, RowCounts
from .times import MICROSECONDS


def write_data_set_histories(
    folder: Path,
    log: InteractionLog,
    rows: pl.LazyFrame,
    users: KeptUsers,
    items: pl.DataFrame,
    behaviors: pl.DataFrame,
) -> int:
    """Writes the store of a data set: all users of the log, also those that have too few behaviours to train on.

    Args:
        folder: to write.
        log: the log.
        rows: its rows, without repeats where they are merged.
        users: those that are kept, whose behaviours are sorted already.
        items: `item`, in the order of their numbers.
        behaviors: `item` and `time` of the kept users' rows, as `ordered_behaviors` gives them.

    Returns:
        How many users are not in it, as their ids can't be.
    """
    bounds = np.append(users.first, users.end[-1])
    ids = _item_ids(items["item"])[behaviors["item"].to_numpy()]
    kept = _events(users.frame["user"], bounds, behaviors["time"].to_numpy(), ids, log)
    parts = [kept]
    if users.dropped:
        others = rows.join(users.frame.lazy(), on="user", how="anti")
        parts.append(events_of_rows(others, log))
    storable = [_storable(part) for part in parts]
    events = storable[0] if len(parts) == 1 else storable[0].replaced(storable[1])
    write_histories(folder, events, durable=False)
    return sum(len(part.users) for part in parts) - len(events.users)


def events_of_rows(rows: pl.LazyFrame, log: InteractionLog) -> Events:
    """Rows of a log as events, in the order in which a model is trained on them."""
    if rows.collect_schema()["item"] == pl.String:
        rows = rows.filter(fits_text_id("item"))
    numbered, keys = with_order(rows)
    frame = collect(numbered.sort("user", *keys).select("user", "item", pl.col(keys[0]).alias("time")))
    users = frame["user"].rle()
    lengths = users.struct.field("len").to_numpy()
    bounds = np.append(0, np.cumsum(lengths, dtype=np.int64))
    return _events(users.struct.field("value"), bounds, frame["time"].to_numpy(), _item_ids(frame["item"]), log)


def read_events(
    source: LogSource, scratch: Path, *, merged: bool, max_bad_share: float, say: Callable[[str], None]
) -> tuple[Events, dict[str, int]]:
    """Reads files as `nann prepare log` does.

    Args:
        source: the files.
        scratch: a folder for intermediate files.
        merged: leave out rows that repeat the user's row before, as `--merge-repeats` of `nann prepare` does.
        max_bad_share: files with a larger share of bad rows are refused.
        say: called with what was found out and not told.

    Returns:
        The events, none if there was nothing to keep (an hour in which nothing happened), and counts of rows.

    Raises:
        ConfigError, DataError: as `read_log`.
    """
    try:
        log = read_log(
            source.files,
            source.columns,
            scratch,
            text=source.text,
            rules=source.rules,
            max_bad_share=max_bad_share,
            say=say,
        )
    except EmptyLogError as empty:
        return NO_EVENTS, _counted(empty.counts)
    rows, repeats = merge_repeats(log.rows) if merged else (log.rows, 0)
    read = events_of_rows(rows, log)
    events = _storable(read)
    return events, _counted(log.counts, repeats, len(read.users) - len(events.users))


def _counted(rows: RowCounts, repeats: int = 0, users_left_out: int = 0) -> dict[str, int]:
    counts = {"rows": rows.read, "bad": rows.bad, "filtered": rows.filtered, "cut_last_lines": rows.cut_last_lines}
    return {**counts, "repeats": repeats, "users_left_out": users_left_out}


def _events(
    users: pl.Series, bounds: npt.NDArray[np.int64], ticks: npt.NDArray[np.int64], items: Ids, log: InteractionLog
) -> Events:
    texts = [user.encode() for user in users.cast(pl.String).to_list()]
    profiles = None if log.profiles is None else _codes(log.profiles, users)
    return Events(texts, bounds.astype(np.int64), ticks * (MICROSECONDS // log.ticks_per_s), items, profiles)


def _codes(profiles: UserProfiles, users: pl.Series) -> npt.NDArray[np.int32]:
    """Codes of the users' profiles, `int32[U, P]`; 0 = unknown."""
    frame = users.alias("user").to_frame().join(profiles.codes, on="user", how="left", maintain_order="left")
    names = [f"profile_{place}" for place in range(len(profiles.fields))]
    return np.ascontiguousarray(frame.select(pl.col(names).fill_null(0)).to_numpy(), np.int32)


def _item_ids(ids: pl.Series) -> Ids:
    return TEXT.stored(ids.to_list()) if ids.dtype == pl.String else ids.to_numpy()


def _storable(events: Events) -> Events:
    fits = [0 < len(user) <= MAX_ID_BYTES and b"\0" not in user for user in events.users]
    return events if all(fits) else events.take(np.flatnonzero(fits))
