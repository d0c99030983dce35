"""Users of the live bundle whose histories a store has."""

from __future__ import annotations

from pathlib import Path

from nann.histories import Events
from nann.histories.file_histories import write_histories
from support.history_events import events_of
from support.live_bundle import item_ids

HISTORIES: dict[str, list[int]] = {
    "17": item_ids()[20:45].tolist(),
    "u-1": [*item_ids()[[100, 101]].tolist(), 5],
    "none": [],
}
"""Item ids by user: more than the model reads; one that the bundle does not know; none."""


def events() -> Events:
    """The histories as events."""
    return events_of({user.encode(): list(enumerate(items)) for user, items in HISTORIES.items()})


def write_store(folder: Path) -> Path:
    """A store with them in a new folder."""
    write_histories(folder, events())
    return folder
