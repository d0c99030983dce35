"""What `nann prepare` prints of the data set that it has written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .support import console, make_table

if TYPE_CHECKING:
    from ..training.data.rows import InteractionLog

_SHOWN_VALUES = 3


def show(manifest: Mapping[str, Any], folder: Path) -> None:
    """Prints counts, attributes of the items, warnings and examples of bad rows."""
    console.print(make_table(f"{manifest['name']} in {folder}", ("", ""), _counts(manifest).items()))
    if manifest["item_attributes"]:
        rows = [_attribute(field) for field in manifest["item_attributes"]]
        console.print(make_table("item attributes", ("field", "kind", "codes", "items without", "left out"), rows))
    if manifest["profile_fields"]:
        pairs = zip(manifest["profile_fields"], manifest["profile_unknown_users"], strict=True)
        rows = [_profile(field, unknown) for field, unknown in pairs]
        console.print(make_table("user profile", ("field", "kind", "values or bins", "users without"), rows))
    if manifest["item_fields_left_out"]:
        names = ", ".join(manifest["item_fields_left_out"])
        say(f"columns of the table of items that tell no items apart, left out: {names}")
    for warning in manifest["warnings"]:
        say(f"warning: {warning}")
    for example in manifest["rows"]["bad_examples"]:
        say(f"bad row: {example}")


def show_sample(log: InteractionLog) -> dict[str, Any]:
    """Prints what a sample has, and returns it."""
    counts, frame = log.counts, log.rows.collect()
    several = {"user": "users", "item": "items", "category": "categories", "basket": "baskets"}
    found = {words: frame[name].n_unique() for name, words in several.items() if name in frame.columns}
    lines = {"rows": counts.read, "bad rows": counts.bad, "rows left out": counts.filtered, **found}
    console.print(make_table("a sample", ("", ""), ((name, f"{count:,}") for name, count in lines.items())))
    say("a dry run: nothing is written")
    for line in (*log.conversions, *(f"bad row: {example}" for example in counts.bad_examples)):
        say(line)
    return {"name": log.name, "sample": lines, "found": log.settings["found"], "bad_rows": counts.bad_by_reason}


def say(line: str) -> None:
    """Prints a line for people."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _counts(manifest: Mapping[str, Any]) -> dict[str, str]:
    counts, rows, protocol = manifest["counts"], manifest["rows"], manifest["protocol"]
    split = " / ".join(f"{counts[f'{name}_users']:,}" for name in ("train", "validation", "test"))
    history = "history excluded" if protocol["exclude_history"] else "history included"
    time = f" at {protocol['split_time']}" if protocol["split_time"] else ""
    lines = {
        "protocol": f"{protocol['kind']}{time}, {history}",
        "users to train / validate / test": split,
        "users left out": f"{counts['dropped_users']:,}, with {counts['dropped_behaviors']:,} behaviours",
        "items": f"{counts['items']:,}",
        "categories": f"{counts['categories']:,}",
        "behaviours": f"{counts['behaviors']:,}",
        "bad rows": f"{rows['bad']:,}",
    }
    some = {
        "baskets": counts["groups"] if manifest["has_groups"] else 0,
        "cut last lines": rows["cut_last_lines"],
        "repeats merged": counts["merged_repeats"],
        "rows that --events, --min-value or the type leave out": rows["filtered"],
        "appended: new items": counts.get("appended_items", 0),
        "appended: new users": counts.get("appended_users", 0),
        "appended: older rows left out": counts.get("older_rows", 0),
        "appended: rows that it had": counts.get("known_rows", 0),
        "items of the users left out alone": counts["dropped_items"],
        "items first seen after the time": counts.get("new_items", 0),
        "rows of --items not in the log": counts["item_rows_not_in_log"],
        "rows of --profile not in the log": counts["profile_rows_not_in_log"],
    }
    for name in ("validation", "test"):
        some[f"{name} ground truth in the history"] = counts.get(f"{name}_items_in_history", 0)
        some[f"{name} users left without"] = counts.get(f"{name}_users_without_new", 0)
    return lines | {name: f"{count:,}" for name, count in some.items() if count}


def _profile(field: Mapping[str, Any], unknown: int) -> tuple[str, ...]:
    values = field["values"]
    few = ", ".join(values) if len(values) <= _SHOWN_VALUES else f"{len(values):,}: {values[0]} ... {values[-1]}"
    return field["name"], field["kind"], few, f"{unknown:,}"


def _attribute(field: Mapping[str, Any]) -> tuple[str, ...]:
    from ..training.data.item_attributes import code_count

    common = field["left_out"]
    more = f" and {len(common) - _SHOWN_VALUES} more" if len(common) > _SHOWN_VALUES else ""
    left_out = f"{', '.join(common[:_SHOWN_VALUES])}{more} (over half of the items)" if common else ""
    return field["name"], field["kind"], f"{code_count(field):,}", f"{field['unknown']:,}", left_out
