"""Which items a search may not show its users: the conditions of a request as bitmaps.

Serving, offline evaluation and the planning of shapes share this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nann import item_sets
from nann.errors import RequestError
from nann.filters import Catalogue, NamedFilters, Predicate, ServedFilters
from nann.kernels import NATIVE, Int32Array, Int64Array, Uint64Array
from nann.search_params import SearchOptions

if TYPE_CHECKING:
    from nann.bundle import Bundle


class RequestConditions:
    """Reads the conditions of requests to one bundle.

    Args:
        bundle: with item ids and, for filters, its attributes' files.
        operator: filters that the operator of a server has named; None: the bundle's alone.
    """

    def __init__(self, bundle: Bundle, operator: NamedFilters | None = None) -> None:
        self._item_count = bundle.item_count
        self._attributes = bundle.attributes
        self._named = ServedFilters.of_bundle(bundle, operator)
        self._present: Uint64Array | None = None

    def follow(self, removed: Uint64Array | None, attributes: Catalogue | None) -> None:
        """Goes on with a corpus that changed.

        Args:
            removed: `uint64[W]`, items that nobody may be shown any more; None: there are none.
            attributes: of the items.
        """
        self._present = None if removed is None else item_sets.invert(removed, self._item_count)
        self._attributes = attributes
        self._named.follow(attributes)

    def blocked(
        self,
        options: SearchOptions,
        history: Int32Array,
        *,
        excluded: Int32Array | None = None,
        allowed: Int32Array | None = None,
    ) -> Uint64Array | None:
        """The items that each of B users may not be shown, `uint64[B, W]`: `UserBatch.blocked`.

        Args:
            options: of the request.
            history: `int32[B, L]`, the users' own items, -1 = padding.
            excluded: `int32[B, X]`, items of a deny list, -1 = padding.
            allowed: `int32[B, A]`, items of an allow list, -1 = padding; None: there is no list.

        Raises:
            RequestError: if a filter can't be read, or there is none of the name that is asked for.
        """
        lists = [] if excluded is None else [excluded]
        if options.exclude_history:
            lists.append(history)
        matching = [] if self._present is None else [self._present]
        if options.filter is not None:
            matching.append(self._matching(options.filter))
        if options.filter_name is not None:
            matching.append(self._named.allowed(options.filter_name))
        return blocked(len(history), self._item_count, matching=matching, allowed=allowed, excluded=lists)

    def _matching(self, text: str | Predicate) -> Uint64Array:
        if self._attributes is None:
            raise RequestError("parameter filter came, and the items have no attributes here; leave it out")
        try:
            return self._attributes.compile(text)
        except RequestError as error:
            raise RequestError(f"parameter filter: {error}") from error


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
        rows = np.broadcast_to(item_sets.invert(shown, item_count), (users, words))
        rows = rows.copy() if excluded else rows
    for items in excluded:
        NATIVE.mark(rows, np.ascontiguousarray(items))
    return rows


def items_matching(blocked_items: Uint64Array | None, users: int, item_count: int) -> Int64Array:
    """How many of the N items each of B users may be shown, `int64[B]`; `blocked_items` as from `blocked`."""
    if blocked_items is None:
        return np.full(users, item_count, np.int64)
    return item_count - NATIVE.count(np.ascontiguousarray(blocked_items))
