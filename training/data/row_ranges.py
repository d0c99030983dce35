"""Ranges of rows: the unique items in them, and which rows are in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


def unique_pairs(items: Int32Array, first: Int64Array, end: Int64Array, item_count: int) -> Int64Array:
    """Each pair of a range and an item in it once, `int64[n]`, ascending: range * `item_count` + item.

    Args:
        items: `int32[R]`, the item of each row.
        first: `int64[Q]`, first row of each range.
        end: `int64[Q]`, the row after each range's last.
        item_count: the number of items, N.
    """
    lengths = end - first
    of_range = np.repeat(np.arange(first.shape[0]), lengths)  # [rows]
    offset = np.arange(of_range.shape[0]) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    pairs: Int64Array = np.unique(of_range * item_count + items[first[of_range] + offset])
    return pairs


def to_csr(pairs: Int64Array, ranges: int, item_count: int) -> tuple[Int64Array, Int32Array]:
    """Pairs as `indptr`, `int64[ranges + 1]`, and item indices, `int32[n]`."""
    counts = np.bincount(pairs // item_count, minlength=ranges)
    return np.append(0, np.cumsum(counts)).astype(np.int64), (pairs % item_count).astype(np.int32)


def rows_before(first: Int64Array, cut: Int64Array, end: Int64Array) -> npt.NDArray[np.bool_]:
    """Whether each row is before the cut of its range, `bool[R]`, for Q ranges that follow each other.

    Args:
        first: `int64[Q]`, first row of each range.
        cut: `int64[Q]`, from `first` to `end`.
        end: `int64[Q]`, the row after each range's last, where the next begins.
    """
    lengths = np.stack([cut - first, end - cut], axis=1).ravel()  # [2 Q]
    return np.repeat(np.tile([True, False], first.shape[0]), lengths)
