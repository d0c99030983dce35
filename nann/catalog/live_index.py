"""What searches walk: a bundle's index, and behind it the items that were added."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nann.light_codes import LightCodes
from nann.search_input import SearchIndex, UnlinkedItems

from .added_items import Added

_ROOM, _LEAST_ROOM = 0.02, 1_024
"""Places behind the bundle's items that are there from the beginning, as a share of these, and at least."""


class LiveIndex:
    """Follows the added items of one bundle.

    Args:
        index: the bundle's.
    """

    def __init__(self, index: SearchIndex) -> None:
        self._index = index
        self._codes: LightCodes | None = None
        self._coded = self._move = 0

    def of(self, added: Added | None) -> SearchIndex:
        """The index with these added items. One from before stays valid: what it reads is not written to again."""
        if added is None:
            return self._index
        codes = None if self._index.light_vectors is None else self._with(added)
        return replace(self._index, added=UnlinkedItems(added.first, added.capacity, codes))

    def _with(self, added: Added) -> LightCodes:
        """The codes of all items, and of all places that there is room for."""
        end = added.first + added.capacity
        if self._codes is None or added.move != self._move or len(self._codes.codes) < end:
            self._codes, self._coded, self._move = self._with_room(added.first, end), 0, added.move
        self._codes.write(added.first + self._coded, added.light[self._coded :])
        self._coded = len(added)
        return replace(self._codes, codes=self._codes.codes[:end])

    def _with_room(self, first: int, end: int) -> LightCodes:
        base = self._index.light_codes
        room = max(int(_ROOM * first), _LEAST_ROOM, 2 * (end - first))
        codes = np.zeros((first + room, base.codes.shape[1]), np.int8)
        codes[: len(base.codes)] = base.codes
        return replace(base, codes=codes)
