"""Which items a search may not show its users: the conditions of a request as a bitmap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nann import item_sets
from nann.kernels import NATIVE, Int32Array, Int64Array, Uint64Array


def blocked(
    users: int,
    item_count: int,
    *,
    matching: Sequence[Uint64Array] = (),
    allowed: Int32Array | None = None,
    excluded: Sequence[Int32Array] = (),
) -> Uint64Array | None:
    """The items that each of B users may not be shown: `UserBatch.blocked`. All conditions must hold.

    Args:
        users: B.
        item_count: N.
        matching: sets `uint64[W]` of the items that filters allow, the same for all users.
        allowed: `int32[B, A]`, the only items that a user may get, -1 = padding; None: all.
        excluded: arrays `int32[B, X]` of items that a user may not get, -1 = padding.

    Returns:
        `uint64[B, W]`; None: no condition was given.
    """
    if not matching and allowed is None and not excluded:
        return None
    words = item_sets.bitmap_words(item_count)
    shown = np.bitwise_and.reduce(matching)[None] if matching else None  # [1, W]
    if allowed is not None:
        listed = np.zeros((users, words), np.uint64)
        NATIVE.mark(listed, np.ascontiguousarray(allowed))
        shown = listed if shown is None else listed & shown  # [B, W]
    if shown is None:
        rows = np.zeros((users, words), np.uint64)  # the kernel gives memory to the pages that a history touches alone
    else:
        rows = np.repeat(item_sets.invert(shown, item_count), users // len(shown), axis=0)
    for items in excluded:
        NATIVE.mark(rows, np.ascontiguousarray(items))
    return rows


def items_matching(blocked_items: Uint64Array | None, users: int, item_count: int) -> Int64Array:
    """How many of the N items each of B users may be shown, `int64[B]`; `blocked_items` as from `blocked`."""
    if blocked_items is None:
        return np.full(users, item_count, np.int64)
    return item_count - NATIVE.count(np.ascontiguousarray(blocked_items))
