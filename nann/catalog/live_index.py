"""What searches walk: a bundle's index, and behind it the items that were added."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nann.bundle import Bundle
from nann.item_rows import ItemRows
from nann.light_codes import LightCodes
from nann.search_input import SearchIndex, UnlinkedItems

from .added_items import Added


class LiveIndex:
    """Follows the added items of one bundle, for whoever searches it.

    Args:
        bundle: with what searches walk, and item rows if its scorer has no item table.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._index, self._rows = bundle.index, bundle.item_rows
        self._codes: LightCodes | None = None
        self._coded = self._move = 0

    def of(self, added: Added | None) -> tuple[SearchIndex, ItemRows | None]:
        """The index with these added items, and the rows of all items; rows are None for a scorer with an item table.

        What it returned before stays valid: nothing that is read there is written to again.
        """
        if added is None:
            return self._index, self._rows
        codes = None if self._index.light_vectors is None else self._with(added)
        index = replace(self._index, added=UnlinkedItems(added.first, added.capacity, codes))
        return index, None if self._rows is None else replace(self._rows, delta=added.rows, first=added.first)

    def _with(self, added: Added) -> LightCodes:
        """The codes of all items, and of all places that there is room for."""
        end = added.first + added.capacity
        if self._codes is None and not added.move:
            self._codes = self._index.codes_with_room
        if self._codes is None or added.move != self._move or len(self._codes.codes) < end:
            self._codes, self._coded, self._move = self._with_room(added.first, end), 0, added.move
        self._codes.write(added.first + self._coded, added.light[self._coded :])
        self._coded = len(added)
        return replace(self._codes, codes=self._codes.codes[:end])

    def _with_room(self, first: int, end: int) -> LightCodes:
        base = self._index.light_codes
        rows = max(len(self._index.codes_with_room.codes), first + 2 * (end - first))
        codes = np.zeros((rows, base.codes.shape[1]), np.int8)
        codes[: len(base.codes)] = base.codes
        return replace(base, codes=codes)
