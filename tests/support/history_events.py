"""Behaviours of a few users, as a store of histories takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nann.histories import Events


def events_of(
    users: Mapping[bytes, Sequence[tuple[int, int | bytes]]], profiles: Sequence[Sequence[int]] | None = None
) -> Events:
    """Of each user the (time, item) in order of time; items are numbers, or the bytes of ids that are text."""
    each = [event for events in users.values() for event in events]
    items = [item for _, item in each]
    numbers = all(isinstance(item, int) for item in items)
    return Events(
        list(users),
        np.append(0, np.cumsum([len(events) for events in users.values()])).astype(np.int64),
        np.array([time for time, _ in each], np.int64),
        np.array(items, np.int64 if numbers else np.bytes_),
        None if profiles is None else np.array(profiles, np.int32),
    )
