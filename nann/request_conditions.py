"""Which items a search may not show its users: the conditions of a request as bitmaps.

Serving, offline evaluation and the planning of shapes share this code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nann import item_sets
from nann.errors import RequestError
from nann.filters import Catalogue, NamedFilters, Predicate, ServedFilters
from nann.kernels import NATIVE, Int32Array, Int64Array, Uint64Array
from nann.search_params import SearchOptions
from nann.signature import PADDING_ITEM

if TYPE_CHECKING:
    from nann.bundle import Bundle
    from nann.catalog.added_items import Added


class RequestConditions:
    """Reads the conditions of requests to one bundle.

    Args:
        bundle: with item ids and, for filters, its attributes' files.
        operator: filters that the operator of a server has named; None: the bundle's alone.
    """

    def __init__(self, bundle: Bundle, operator: NamedFilters | None = None) -> None:
        self._base_count = self._item_count = bundle.item_count
        self._id_kind = bundle.id_kind
        self._attributes = bundle.attributes
        self._named = ServedFilters.of_bundle(bundle, operator)
        self._added: Added | None = None
        self._present: Uint64Array | None = None

    def follow(self, removed: Uint64Array | None, attributes: Catalogue | None, added: Added | None) -> None:
        """Goes on with a corpus that changed.

        Args:
            removed: `uint64[W]`, items of the bundle that nobody may be shown any more; None: there are none.
            attributes: of the bundle's items.
            added: items behind them; None: there are none.
        """
        self._attributes, self._added = attributes, added
        self._named.follow(attributes)
        self._item_count = self._base_count if added is None else added.first + added.capacity
        if removed is None and added is None:
            self._present = None
        else:
            there = item_sets.none(self._base_count) if removed is None else removed
            self._present = self._joined(item_sets.invert(there, self._base_count), lambda added: added.present)

    def blocked(
        self,
        options: SearchOptions,
        history: Int32Array,
        *,
        excluded: Int32Array | Int64Array | None = None,
        allowed: Int32Array | Int64Array | None = None,
    ) -> Uint64Array | None:
        """The items that each of B users may not be shown, `uint64[B, W]`: `UserBatch.blocked`.

        Args:
            options: of the request.
            history: `int32[B, L]`, the users' own items, -1 = padding.
            excluded: `int32[B, X]`, items of a deny list, -1 = padding; or `FeatureTransform.item_codes` of them.
            allowed: the same of an allow list; None: there is no list.

        Raises:
            RequestError: if a filter can't be read, or there is none of the name that is asked for.
        """
        lists = [] if excluded is None else [self._items(excluded)]
        if options.exclude_history:
            lists.append(history if self._added is None else self._added.instead_of(history))
        matching = [] if self._present is None else [self._present]
        if options.filter is not None:
            matching.append(self._matching(options.filter))
        if options.filter_name is not None:
            matching.append(self._matching_name(options.filter_name))
        only = None if allowed is None else self._items(allowed)
        return blocked(len(history), self._item_count, matching=matching, allowed=only, excluded=lists)

    def _joined(self, base: Uint64Array, of_added: Callable[[Added], Uint64Array]) -> Uint64Array:
        """A set of the bundle's items, and behind it one of the added items, if there are any."""
        return base if self._added is None else np.concatenate([base, of_added(self._added)])

    def _items(self, codes: Int32Array | Int64Array) -> Int32Array:
        """Item indices of `FeatureTransform.item_codes`, -1 also for what nobody knows; any shape."""
        items: Int32Array = np.maximum(codes, PADDING_ITEM).astype(np.int32)
        if self._added is None:
            return items
        items = self._added.instead_of(items)
        if (behind := codes < PADDING_ITEM).any():
            items[behind] = self._added.items_of(~codes[behind].astype(np.int64))
        return items

    def _matching(self, text: str | Predicate) -> Uint64Array:
        if self._attributes is None:
            raise RequestError("parameter filter came, and the items have no attributes here; leave it out")
        try:
            return self._joined(self._attributes.compile(text), lambda added: added.matching(text))
        except RequestError as error:
            raise RequestError(f"parameter filter: {error}") from error

    def _matching_name(self, name: str) -> Uint64Array:
        def of_added(added: Added) -> Uint64Array:
            definition = self._named.definition(name)
            if isinstance(definition, str):
                return added.matching(definition)
            return added.listed(self._id_kind.keys(definition))

        return self._joined(self._named.allowed(name), of_added)


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
