"""Sets of items as bitmaps: what a filter allows, what a user may not be shown, what a search has visited.

A set is `uint64[W]`, W = `bitmap_words(N)`: item v is bit v % 64 of word v // 64. Bits from N on are 0.
"""

from __future__ import annotations

import numpy as np

from nann.kernels import NATIVE, BoolArray, Int32Array, Uint64Array
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
    words = np.flatnonzero(item_set)  # most sets are sparse
    as_bytes = item_set[words].astype("<u8", copy=False).view(np.uint8)  # bit v of a word is bit v % 8 of byte v // 8
    bits = np.flatnonzero(np.unpackbits(as_bytes, bitorder="little"))
    return np.asarray(words[bits // _WORD] * _WORD + bits % _WORD, np.int32)


def contains(item_sets: Uint64Array, items: Int32Array) -> BoolArray:
    """Which items (`int32[B, X]`, -1 = none) are in the set of the same row (`uint64[B, W]`): `bool[B, X]`."""
    words = item_sets[np.arange(len(items))[:, None], items >> 6]  # of -1 the last one; its bit is not looked at
    found: BoolArray = (words >> (items & 63).astype(np.uint64) & np.uint64(1) == 1) & (items != PADDING_ITEM)
    return found
