"""Sets of items as bitmaps: what a filter allows, what a user may not be shown, what a search has visited.

A set is `uint64[W]`, W = `bitmap_words(N)`: item v is bit v % 64 of word v // 64. Bits from N on are 0.
"""

from __future__ import annotations

import numpy as np

from nann.kernels import NATIVE, Int32Array, Uint64Array
from nann.signature import PADDING_ITEM

_WORD = 64


def bitmap_words(item_count: int) -> int:
    """W: how many 64-bit words hold one bit per item."""
    return -(-item_count // _WORD)


def none(item_count: int) -> Uint64Array:
    """The empty set of a corpus of N items, `uint64[W]`; writable."""
    return np.zeros(bitmap_words(item_count), np.uint64)


def everything(item_count: int) -> Uint64Array:
    """The set of all N items, `uint64[W]`."""
    return invert(none(item_count), item_count)


def of_items(items: Int32Array, item_count: int) -> Uint64Array:
    """The set of these items (`int32[X]` in any order, -1 ignored), `uint64[W]`.

    Raises:
        IndexError: if an item is not one of the N.
    """
    if len(items) and not (items.min() >= PADDING_ITEM and items.max() < item_count):
        bad = items[(items < PADDING_ITEM) | (items >= item_count)][0]
        raise IndexError(f"items holds {bad}; expected an item of 0 <= item < {item_count}, or {PADDING_ITEM}")
    item_set = none(item_count)
    NATIVE.mark(item_set[None], np.ascontiguousarray(items)[None])
    return item_set


def invert(item_set: Uint64Array, item_count: int) -> Uint64Array:
    """The items that are not in the set, `uint64[..., W]`; also of several sets at once."""
    inverse = ~item_set
    if item_count % _WORD:
        inverse[..., -1] &= np.uint64((1 << item_count % _WORD) - 1)
    return inverse


def count(item_set: Uint64Array) -> int:
    """How many items are in the set."""
    return int(NATIVE.count(item_set[None])[0])


def members(item_set: Uint64Array) -> Int32Array:
    """The items of the set (`uint64[W]`), ascending: `int32[X]`."""
    as_bytes = item_set.astype("<u8", copy=False).view(np.uint8)  # bit v of the set is bit v % 8 of byte v // 8
    return np.flatnonzero(np.unpackbits(as_bytes, bitorder="little")).astype(np.int32)
