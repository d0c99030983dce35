"""The kernels in NumPy: slow, and the specification that tests compare the native kernels with.

`nann.kernels.Kernels` documents the contract and checks dtypes and shapes before these functions see the arrays.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from nann.signature import PADDING_ITEM, PADDING_SCORE

Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
Uint64Array = npt.NDArray[np.uint64]

_LANES = 16
_BITS_OF_BYTE = np.array([byte.bit_count() for byte in range(256)], np.int64)


def mark(visited: Uint64Array, items: Int32Array) -> None:
    """Sets the bits of `items` (`int32[B, X]`) in `visited` (`uint64[B, W]`)."""
    _require_items("items", items, visited.shape[1] * 64)
    for bits, row in zip(visited, items, strict=True):
        _set_bits(bits, row[row != PADDING_ITEM])


def count(item_sets: Uint64Array) -> npt.NDArray[np.int64]:
    """How many bits are set in each row of `uint64[B, W]`: `int64[B]`."""
    return np.asarray(_BITS_OF_BYTE[item_sets.view(np.uint8)].sum(axis=1), np.int64)


def expand(
    indptr: Int32Array, neighbors: Int32Array, visited: Uint64Array, frontier: Int32Array, threads: int = 1
) -> Int32Array:
    """Unvisited neighbours of `frontier` (`int32[B, F]`), which become visited (`uint64[B, W]`): `int32[B, C]`."""
    _require_words("visited", visited, len(indptr) - 1)
    rows = [_expand_row(indptr, neighbors, bits, row) for bits, row in zip(visited, frontier, strict=True)]
    return _padded(rows)


def expand_through(
    indptr: Int32Array,
    neighbors: Int32Array,
    visited: Uint64Array,
    blocked: Uint64Array,
    frontier: Int32Array,
    reach: int,
    threads: int = 1,
) -> Int32Array:
    """`expand` through items that are blocked (`uint64[B, V]`) to those behind them: `int32[B, C]`."""
    _require_words("visited", visited, len(indptr) - 1)
    _require_words("blocked", blocked, len(indptr) - 1)
    words, rows = -(-(len(indptr) - 1) // 64), []
    for bits, hidden, row in zip(visited, blocked, frontier, strict=True):
        neighbors_found = _expand_row(indptr, neighbors, bits, row)
        is_bridge = _is_set(hidden, neighbors_found)
        found = neighbors_found[~is_bridge]
        most = reach * np.count_nonzero(row != PADDING_ITEM)
        for bridge in neighbors_found[is_bridge][:most]:
            if len(found) >= most:
                break
            # As visited, blocked items are not found; they stay unmarked.
            behind = _expand_row(indptr, neighbors, bits[:words] | hidden[:words], np.array([bridge]))
            _set_bits(bits, behind)
            found = np.concatenate([found, behind])
        rows.append(found)
    return _padded(rows)


def merge_top(
    items: Int32Array,
    scores: Float32Array,
    new_items: Int32Array,
    new_scores: Float32Array,
    ef: Int32Array,
    threads: int = 1,
) -> tuple[Int32Array, Float32Array, npt.NDArray[np.bool_]]:
    """The `ef` best of items (`int32[B, R]`) and new_items (`int32[B, C]`): int32, float32 and bool `[B, E]`."""
    if np.any(ef < 1):
        raise ValueError(f"ef holds {ef[ef < 1][0]}; expected at least 1")
    _require_items("items", items)
    _require_items("new_items", new_items)
    all_items = np.concatenate([items, new_items], axis=1)  # [B, R + C]
    all_scores = np.concatenate([scores, new_scores], axis=1)
    padding = all_items == PADDING_ITEM
    if np.any(nan := np.isnan(all_scores) & ~padding):
        raise ValueError(f"the score of item {all_items[nan][0]} is NaN; expected a number")
    # The last key is the primary one. The sort is stable: entries that tie in all keys keep their order.
    order = np.lexsort((all_items, np.where(padding, np.inf, -all_scores), padding), axis=-1)
    order = order[:, : min(int(ef.max(initial=0)), order.shape[1])]  # [B, E]
    top = np.take_along_axis(all_items, order, axis=1)
    kept = (np.arange(order.shape[1]) < ef[:, None]) & (top != PADDING_ITEM)
    top_scores = np.take_along_axis(all_scores, order, axis=1)
    return (
        np.where(kept, top, np.int32(PADDING_ITEM)),
        np.where(kept, top_scores, np.float32(PADDING_SCORE)),
        kept & (order >= items.shape[1]),
    )


def light_walk(
    indptr: Int32Array,
    neighbors: Int32Array,
    entry_points: Int32Array,
    vectors: Float32Array,
    users: Float32Array,
    width: int,
    ef: Int32Array,
    steps: Int32Array,
    blocked: Uint64Array | None,
    threads: int,
) -> tuple[Int32Array, Float32Array, Int32Array]:
    """Best-first search by <user, vector>: items int32 and scores float32 `[B, width]`, count scored int32 `[B]`."""
    _require_entry_points(entry_points, len(vectors))
    items = np.full((len(users), width), PADDING_ITEM, np.int32)
    scores = np.full((len(users), width), PADDING_SCORE, np.float32)
    scored = np.zeros(len(users), np.int32)
    if blocked is not None:
        _require_words("blocked", blocked, len(vectors))
    none = np.empty((1, 0), np.int32)
    for row, user in enumerate(users):
        best, best_scores = none, none.astype(np.float32)  # W, as rows of one-row matrices
        visited = np.zeros((1, -(-len(vectors) // 64)), np.uint64)
        unexpanded: list[tuple[np.float32, int]] = []  # a heap of (-score, item)
        candidates = entry_points[None, :]
        mark(visited, candidates)
        for step in range(int(steps[row]) + 1):
            found = inner_products(user, vectors[candidates[0]])[None, :]
            scored[row] += candidates.shape[1]
            shown = (
                candidates
                if blocked is None
                else np.where(_is_set(blocked[row], candidates), np.int32(PADDING_ITEM), candidates)
            )
            best, best_scores, _ = merge_top(best, best_scores, shown, found, ef[row : row + 1])
            for negated, item in zip(-found[0], candidates[0].tolist(), strict=True):
                heappush(unexpanded, (negated, item))
            is_full = np.count_nonzero(best != PADDING_ITEM) == ef[row]
            if not unexpanded or (is_full and unexpanded[0] > (-best_scores[0, -1], best[0, -1])):
                break
            if step == steps[row]:
                best = best if blocked is None else none
                break
            candidates = expand(indptr, neighbors, visited, np.array([[heappop(unexpanded)[1]]], np.int32))
        kept = min(width, best.shape[1])
        items[row, :kept], scores[row, :kept] = best[0, :kept], best_scores[0, :kept]
    return items, scores, scored


def light_scan(
    codes: Int8Array, users: Int16Array, blocked: Uint64Array, counts: Int32Array, threads: int
) -> tuple[Int32Array, Int32Array]:
    """The greatest <user, code> that are not blocked: items and products, int32 `[B, max(counts)]`."""
    _require_words("blocked", blocked, len(codes))
    if codes.shape[1] % _LANES:
        raise ValueError(f"codes has {codes.shape[1]} columns; expected a multiple of {_LANES}")
    if codes.shape[1] != users.shape[1]:
        raise ValueError(f"users has {users.shape[1]} columns; expected {codes.shape[1]}, as codes")
    width = max(0, int(counts.max(initial=0)))
    items = np.full((len(users), width), PADDING_ITEM, np.int32)
    products = np.full((len(users), width), np.iinfo(np.int32).min, np.int32)
    everything = np.arange(len(codes), dtype=np.int32)
    for row in np.flatnonzero(counts > 0):
        allowed = everything[~_is_set(blocked[row], everything)]
        found = codes[allowed].astype(np.int32) @ users[row].astype(np.int32)
        best = np.lexsort((allowed, -found.astype(np.int64)))[: counts[row]]
        items[row, : len(best)], products[row, : len(best)] = allowed[best], found[best]
    return items, products


def gather_rows(base: Float32Array, delta: Float32Array, items: Int32Array, threads: int = 1) -> Float32Array:
    """The row of each of `items` (`int32[B, C]`), zeros for -1: `float32[B C, R]`."""
    if delta.shape[1] != base.shape[1]:
        raise ValueError(f"delta has {delta.shape[1]} columns; expected {base.shape[1]}, as base")
    _require_items("items", items, len(base) + len(delta))
    flat = items.ravel()
    old, new = (flat >= 0) & (flat < len(base)), flat >= len(base)
    rows = np.zeros((len(flat), base.shape[1]), np.float32)
    rows[old], rows[new] = base[flat[old]], delta[flat[new] - len(base)]
    return rows


def inner_products(user: Float32Array, vectors: Float32Array) -> Float32Array:
    """<user, vector> of each vector (`float32[C, d]`), summed in the kernel's order: `float32[C]`, equal to the bit."""
    missing = -len(user) % _LANES
    products = np.pad(vectors * user, ((0, 0), (0, missing)))  # [C, d] -> [C, a multiple of _LANES]
    lanes = np.zeros((len(vectors), _LANES), np.float32)
    for start in range(0, products.shape[1], _LANES):
        lanes += products[:, start : start + _LANES]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def _require_entry_points(entry_points: Int32Array, item_count: int) -> None:
    if np.any(bad := (entry_points < 0) | (entry_points >= item_count)):
        raise IndexError(f"entry_points holds {entry_points[bad][0]}; expected an item of 0 <= item < {item_count}")


def _expand_row(indptr: Int32Array, neighbors: Int32Array, bits: Uint64Array, frontier: Int32Array) -> Int32Array:
    item_count = indptr.shape[0] - 1
    _require_items("frontier", frontier, item_count)
    nodes = frontier[frontier != PADDING_ITEM]
    for node, start, stop in zip(nodes, indptr[nodes], indptr[nodes + 1], strict=True):
        if not 0 <= start <= stop <= len(neighbors):
            raise IndexError(f"indptr of item {node} is {start}:{stop}; expected a range within 0:{len(neighbors)}")
    lists = [neighbors[indptr[node] : indptr[node + 1]] for node in nodes]
    found = np.concatenate([np.empty(0, np.int32), *lists])
    if np.any(bad := (found < 0) | (found >= item_count)):
        raise IndexError(f"neighbors holds {found[bad][0]}; expected an item of 0 <= item < {item_count}")
    fresh = found[~_is_set(bits, found)]
    _set_bits(bits, fresh)
    return _distinct(fresh)


def _distinct(items: Int32Array) -> Int32Array:
    return items[np.sort(np.unique(items, return_index=True)[1])]


def _padded(rows: list[Int32Array]) -> Int32Array:
    found = np.full((len(rows), max(map(len, rows), default=0)), PADDING_ITEM, np.int32)
    for padded, row in zip(found, rows, strict=True):
        padded[: len(row)] = row
    return found


def _is_set(bits: Uint64Array, items: Int32Array) -> npt.NDArray[np.bool_]:
    is_set: npt.NDArray[np.bool_] = bits[items >> 6] & _mask(items) != 0
    return is_set


def _require_words(name: str, bitmaps: Uint64Array, item_count: int) -> None:
    words = -(-item_count // 64)
    if bitmaps.shape[1] < words:
        raise ValueError(
            f"{name} has {bitmaps.shape[1]} words per row; expected at least {words} for {item_count} items"
        )


def _set_bits(bits: Uint64Array, items: Int32Array) -> None:
    np.bitwise_or.at(bits, items >> 6, _mask(items))  # unbuffered: two items may share a word


def _mask(items: Int32Array) -> Uint64Array:
    return np.uint64(1) << (items & 63).astype(np.uint64)


def _require_items(array: str, items: Int32Array, limit: int | None = None) -> None:
    bad = items < PADDING_ITEM if limit is None else (items < PADDING_ITEM) | (items >= limit)
    if bad.any():
        expected = "an item" if limit is None else f"an item of 0 <= item < {limit}"
        raise IndexError(f"{array} holds {items[bad][0]}; expected {expected}, or -1")
