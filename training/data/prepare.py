"""From a canonical log to the prepared data set folder; the only place that maps external item ids to item indices.

manifest.json        format version, sources, protocol, counts, warnings, profile fields, fields of item attributes
items.parquet        item_id int64, or text by its UTF-8 bytes, ascending, with those that were appended after them;
                     category int32, train_count int64, name, and attributes list[int32] with a table of items: row
                     number = item index
attributes.parquet   the attributes as they are, for filters; only if the log has any: row number = item index
categories.parquet   label: row number = category
behaviors.parquet    user int32, item int32, group_first int64: sorted by user and time
events.parquet       the log's rows in their order, for `--append`: user, item, time, and maybe category and basket
histories/           what each user did, by user id: a store that a server can read (`nann.histories`)
users.parquet        user_id, first, end, train_end, validation_first, validation_end, test_first, test_end, profile_0,
                     ...: row number = user index
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.errors import DataError
from nann.item_ids import MAX_ID_BYTES

from .histories import write_data_set_histories
from .item_attributes import EncodedItems, encode_items
from .item_columns import kept_columns
from .numbering import (
    KeptUsers,
    collect,
    distinct_items,
    kept_users,
    numbered_categories,
    numbered_items,
    ordered_behaviors,
)
from .output_folder import HISTORIES_FOLDER, KIND, MANIFEST_FILE, prepared_folder
from .profiles import UserProfiles
from .protocol import NO_TARGET, TARGETS, TIME_SPLIT, Protocol
from .repeats import merge_repeats
from .row_ranges import rows_before
from .rows import InteractionLog
from .splits import Groups, Roles, Split, like_the_row_before, split_rows, without_known_targets
from .times import MICROSECONDS

FORMAT_VERSION = 2
LEAST_ITEMS = 2
"""With fewer there is nothing to retrieve from."""
ITEMS_FILE = "items.parquet"
ATTRIBUTES_FILE = "attributes.parquet"
CATEGORIES_FILE = "categories.parquet"
BEHAVIORS_FILE = "behaviors.parquet"
USERS_FILE = "users.parquet"
EVENTS_FILE = "events.parquet"


def prepare(
    read: Callable[[Path], InteractionLog],
    out: Path,
    protocol: Protocol,
    on_step: Callable[[str], None] = lambda step: None,
    name: str | None = None,
) -> dict[str, Any]:
    """Reads a log, applies the protocol and writes the prepared data set folder.

    Args:
        read: gives the log; its argument is a folder for intermediate files.
        out: the folder to write; only a prepared data set may be replaced.
        protocol: which users are kept, and how they are split.
        on_step: called with a description before each long step.
        name: name of the data set; None: the log's.

    Returns:
        The manifest.

    Raises:
        DataError: if the log is not usable or has too few users, or `out` holds anything else.
    """
    with prepared_folder(out) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        on_step("Reading the log")
        log = read(scratch)
        manifest = _write(log, folder, protocol, on_step, name or log.name)
        shutil.rmtree(scratch)
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return manifest


def _write(
    log: InteractionLog, folder: Path, protocol: Protocol, on_step: Callable[[str], None], name: str
) -> dict[str, Any]:
    on_step("Counting users and items")
    rows, merged = merge_repeats(log.rows) if protocol.merge_repeats else (log.rows, 0)
    users = kept_users(rows, protocol.min_behaviors)
    kept = rows if protocol.whole_corpus else rows.join(users.frame.lazy(), on="user", how="semi")
    items = numbered_items(kept, log.items, None if log.appended is None else log.appended.items)
    if items.height < LEAST_ITEMS:
        raise DataError(
            f"the log has one item; expected at least {LEAST_ITEMS}, to find one of: `nann prepare log --item` names "
            "its column of items"
        )
    attributes = None if log.attributes is None else encode_items(log.attributes, items["item"])
    kept_as_they_are = kept_columns(items, log.attributes, with_category="category" in rows.collect_schema())
    on_step("Sorting behaviours by user and time")
    behaviors = ordered_behaviors(rows, users, items, _late_from(protocol, log.ticks_per_s))
    on_step("Writing what each user did, by user id")
    left_out = write_data_set_histories(folder / HISTORIES_FOLDER, log, rows, users, items, behaviors)
    behaviors = behaviors.drop("time")
    groups = Groups.of(behaviors["group_first"].to_numpy(), users)
    split, found = _split(behaviors, groups, protocol, _roles(users, log))
    on_step("Writing")
    if log.appendable:
        log.rows.sink_parquet(folder / EVENTS_FILE)
    if kept_as_they_are is not None:
        kept_as_they_are.write_parquet(folder / ATTRIBUTES_FILE)
    behaviors.drop("late").write_parquet(folder / BEHAVIORS_FILE)
    unknown_users = _write_users(folder, users, split, log.profiles)
    train_rows = rows_before(users.first, split.train_end, users.end)
    train_counts = np.bincount(behaviors["item"].to_numpy()[train_rows], minlength=items.height)
    counts = {
        "users": len(users.first),
        "train_users": int((split.train_end > users.first).sum()),
        **{f"{name}_users": int((rows[:, 0] != NO_TARGET).sum()) for name, rows in split.targets.items()},
        "dropped_users": users.dropped,
        "dropped_behaviors": users.dropped_rows,
        "items": items.height,
        "dropped_items": distinct_items(rows) - items.height if users.dropped else 0,
        **_stray(kept, items),
        "categories": _write_items(folder, items, train_counts, attributes),
        "behaviors": behaviors.height,
        "groups": int(groups.counts.sum()),
        "merged_repeats": merged,
        "item_rows_not_in_log": attributes.outside if attributes else 0,
        "profile_rows_not_in_log": log.profiles.outside if log.profiles else 0,
        "users_without_stored_history": left_out,
        **found,
        **_new(log, items.height, len(users.first)),
    }
    manifest = _manifest(log, protocol, name, counts, attributes)
    return {**manifest, "profile_unknown_users": unknown_users}


def _manifest(
    log: InteractionLog, protocol: Protocol, name: str, counts: dict[str, int], attributes: EncodedItems | None
) -> dict[str, Any]:
    return {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "name": name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sources": list(log.sources),
        "reader": dict(log.settings),
        "protocol": asdict(protocol),
        "has_groups": "basket" in log.rows.collect_schema(),
        "counts": counts,
        "warnings": [*_warnings(counts), *_conversions(log)],
        "rows": asdict(log.counts),
        "profile_fields": list(log.profiles.fields) if log.profiles else [],
        "item_attributes": list(attributes.fields) if attributes else [],
        "item_fields_left_out": list(attributes.without) if attributes else [],
    }


def _stray(rows: pl.LazyFrame, items: pl.DataFrame) -> dict[str, int]:
    """What the items' most frequent categories leave out."""
    if "category" not in items.columns or "stray" not in items.columns:
        return {"items_of_several_categories": 0, "stray_category_rows": 0, "categories_left_out": 0}
    in_log = collect(rows.select(pl.col("category").drop_nulls().n_unique())).item()
    return {
        "items_of_several_categories": int((items["stray"] > 0).sum()),
        "stray_category_rows": int(items["stray"].sum()),
        "categories_left_out": in_log - items["category"].drop_nulls().n_unique(),
    }


def _new(log: InteractionLog, items: int, users: int) -> dict[str, int]:
    """What was appended, if the log is that of a data set and more."""
    if log.appended is None:
        return {}
    return {
        "appended_items": items - len(log.appended.items),
        "appended_users": users - log.appended.users.height,
        "older_rows": log.appended.older,
        "known_rows": log.appended.known,
    }


def _warnings(counts: dict[str, int]) -> list[str]:
    said = []
    if counts["stray_category_rows"]:
        lost = counts["categories_left_out"]
        said.append(
            f"{counts['stray_category_rows']:,} rows give {counts['items_of_several_categories']:,} items another "
            "category than most of their rows do: the most frequent one counts, of several the newest"
            + (f"; {lost:,} of the log's categories have no item then" if lost else "")
        )
    if counts["users_without_stored_history"]:
        said.append(
            f"{counts['users_without_stored_history']:,} users are not in {HISTORIES_FOLDER}/: their ids are longer "
            f"than {MAX_ID_BYTES} bytes or have a NUL"
        )
    share = counts["targets_like_the_row_before"] / counts["targets"] if counts["targets"] else 0.0
    if share > 0.5:
        said.append(
            f"{share:.0%} of the ground truths begin with the item of the behaviour just before them: a list of the "
            "user's last items is hard to beat; --merge-repeats merges repeated behaviours, --exclude-history asks for "
            "new items"
        )
    return said


def _conversions(log: InteractionLog) -> list[str]:
    """What was read in another way than it is written."""
    what = "spaces around a user, an item, a category or a basket; the spaces were left out"
    spaces = f"{log.counts.trimmed:,} rows have {what}"
    return [*([spaces] if log.counts.trimmed else []), *log.conversions]


def _late_from(protocol: Protocol, ticks_per_s: int) -> int | None:
    """The time of a time split in the log's unit, rounded up."""
    return None if protocol.split_time_us is None else -(-protocol.split_time_us * ticks_per_s // MICROSECONDS)


def _roles(users: KeptUsers, log: InteractionLog) -> Roles | None:
    """What the kept users were for before the log was appended; None if it was not."""
    if log.appended is None:
        return None
    before = log.appended.users.with_columns(pl.col("user").cast(users.frame.schema["user"]))
    roles = users.frame.join(before, on="user", how="left", maintain_order="left")["role"]
    return Roles(*((roles == name).fill_null(False).to_numpy() for name in ("train", *TARGETS)))


def _split(
    behaviors: pl.DataFrame, groups: Groups, protocol: Protocol, roles: Roles | None
) -> tuple[Split, dict[str, int]]:
    """The split and what it counts."""
    items, late = behaviors["item"].to_numpy(), behaviors["late"].to_numpy()
    found = {}
    cut = None
    if protocol.kind == TIME_SPLIT:
        cut = groups.user_end - np.bincount(behaviors["user"].to_numpy()[late], minlength=len(groups.counts))
        found["new_items"] = len(np.setdiff1d(items[late], items[~late]))
    split = split_rows(groups, protocol, cut, roles)
    found["targets_like_the_row_before"], found["targets"] = like_the_row_before(split, items)
    if protocol.exclude_history:
        split, known = without_known_targets(split, groups.user_first, items)
        found |= known
    return split, found


def _write_users(
    folder: Path,
    users: KeptUsers,
    split: Split,
    profiles: UserProfiles | None,
) -> list[int]:
    """Writes the users; returns for each profile field how many users are unknown in it."""
    frame = users.frame.select(pl.col("user").alias("user_id")).with_columns(
        pl.Series("first", users.first),
        pl.Series("end", users.end),
        pl.Series("train_end", split.train_end),
        *(pl.Series(f"{name}_first", rows[:, 0]) for name, rows in split.targets.items()),
        *(pl.Series(f"{name}_end", rows[:, 1]) for name, rows in split.targets.items()),
    )
    names = [f"profile_{i}" for i in range(len(profiles.fields))] if profiles else []
    if profiles is not None:
        # A left join guarantees no order.
        codes = users.frame.join(profiles.codes, on="user", how="left").sort("user_index")
        frame = frame.with_columns(codes.select(pl.col(names).fill_null(0)))
    frame.write_parquet(folder / USERS_FILE)
    return [int((frame[name] == 0).sum()) for name in names]


def _write_items(
    folder: Path, items: pl.DataFrame, train_counts: npt.NDArray[np.int64], attributes: EncodedItems | None
) -> int:
    """Writes items and categories; returns how many categories there are."""
    labels, coded = numbered_categories(items)
    name = pl.col("name") if "name" in coded.columns else pl.lit(None, pl.String).alias("name")
    train_count = pl.Series("train_count", train_counts.astype(np.int64))
    columns = [pl.col("item").alias("item_id"), pl.col("category"), train_count, name]
    if attributes is not None:
        columns.append(attributes.lists.alias("attributes"))
    coded.select(columns).write_parquet(folder / ITEMS_FILE)
    pl.DataFrame({"label": labels}, schema={"label": pl.String}).write_parquet(folder / CATEGORIES_FILE)
    return len(labels)
