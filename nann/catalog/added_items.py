"""Items that were added after the bundle was made, in places of their own behind its items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.filters import Catalogue
from nann.filters.columns import Uint64Array
from nann.filters.predicate import Comparison, Predicate
from nann.item_ids import IdKind
from nann.kernels import Int32Array

from .changes import Float32Array, Id
from .overrides import LiveCatalogue, Overrides

_FIRST_CAPACITY = 64
_NOBODY = np.zeros(_FIRST_CAPACITY // 64, np.uint64)
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Added:
    """D added items as one batch of requests sees them. The item at place p has the index `first` + p.

    Attributes:
        first: `UnlinkedItems.first`.
        ids: `int64[D]`, or `object[D]` of text ids.
        rows: `float32[D, R]`, what the scorer needs of each.
        light: `float32[D, d']`, their vectors for the light score; d' is 0 where the bundle has none.
        vectors: `float32[D, d]`, e_v; NaN where it did not come.
        present: `uint64[W]`, the places whose items are there: others were deleted, or replaced by a later place.
        attributes: of the places, W * 64 of them or fewer, for filters; None where the bundle has none.
        places: of the items that are there, by the key of the id (`IdKind.keys`); only valid until the next change.
        moved: of those of them that are in the place of one of the bundle's items, by its index; valid as long.
        move: how often all items got new places.
    """

    first: int
    ids: npt.NDArray[Any]
    rows: Float32Array
    light: Float32Array
    vectors: Float32Array
    present: Uint64Array
    attributes: Catalogue | None
    places: Mapping[int, int]
    moved: Mapping[int, int]
    move: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def capacity(self) -> int:
        """For how many places the sets have bits."""
        return 64 * len(self.present)

    def matching(self, text: str | Predicate) -> Uint64Array:
        """The places whose items match a filter, `uint64[W]`.

        Raises:
            FilterError: if it can't be read.
        """
        assert self.attributes is not None
        found = np.zeros_like(self.present)
        matching = self.attributes.compile(text)
        found[: len(matching)] = matching
        return found & self.present

    def listed(self, keys: npt.NDArray[np.int64]) -> Uint64Array:
        """The places of the items with these keys, `uint64[W]`."""
        items = self.items_of(keys)
        return item_sets.of_items(np.where(items < 0, items, items - np.int32(self.first)), self.capacity)

    def items_of(self, keys: npt.NDArray[np.int64]) -> Int32Array:
        """The item index of each key, `int32[X]`, -1 where there is none."""
        places = (self.places.get(key, -1) for key in keys.tolist())
        return np.fromiter((self.first + place if place >= 0 else -1 for place in places), np.int32, len(keys))

    def instead_of(self, items: Int32Array) -> Int32Array:
        """Item indices of any shape, with that of the added item where one is in the place of the bundle's."""
        if not self.moved:
            return items
        first = self.first
        found = (first + self.moved[item] if item in self.moved else item for item in items.ravel().tolist())
        return np.fromiter(found, np.int32, items.size).reshape(items.shape)


class AddedItems:
    """The added items of a corpus, which come and go.

    Args:
        catalogue: the attributes of the bundle's items; None: they have none.
        widths: R, d' and d.
        id_kind: of the bundle's ids.
        first: index of the first place.
    """

    def __init__(self, catalogue: Catalogue | None, widths: tuple[int, int, int], id_kind: IdKind, first: int) -> None:
        self._id_kind = id_kind
        self._first = first
        self._by_key: dict[int, int] = {}
        self._moved: dict[int, int] = {}
        self._move = 0
        self._catalogue = catalogue
        self._overrides = Overrides({} if catalogue is None else catalogue.columns)
        self._places: dict[Id, int] = {}
        self._ids = _Growing(np.zeros(0, id_kind.dtype))
        self._rows, self._light, self._vectors = (_Growing(np.zeros((0, width), np.float32)) for width in widths)
        self._replaced = _Growing(np.zeros(0, np.int32))
        self._present = _NOBODY.copy()
        self._snapshot: Added | None = None
        self._changed = False

    def __len__(self) -> int:
        """How many are there."""
        return len(self._places)

    def place(self, item_id: Id) -> int | None:
        """Where an item is; None: nowhere."""
        return self._places.get(item_id)

    def attributes(self, place: int) -> dict[str, Any]:
        """The attributes that were given to the item at a place."""
        return self._overrides.of(place)

    def row(self, place: int) -> Float32Array:
        """`float32[R]`, the row of the item at a place."""
        row: Float32Array = self._rows.view[place]
        return row

    def put(
        self,
        item_id: Id,
        attributes: Mapping[str, Any],
        row: Float32Array,
        light: Float32Array | None,
        vector: Float32Array | None,
        replaced: int,
    ) -> int:
        """Puts an item at a new place, also one that has a place: searches that are under way may read the old one.

        Args:
            item_id: its id.
            attributes: all that were given to it.
            row: `float32[R]`.
            light: `float32[d']`; None where d' is 0.
            vector: `float32[d]`; None: it did not come.
            replaced: the bundle's item in whose place it comes, which has the attributes that were not given; or -1.

        Returns:
            How many of the attributes the bundle does not have, or not so.
        """
        if len(self._ids) >= 2 * (len(self._places) + _FIRST_CAPACITY):
            self._move_together()
        self._changed = True
        if item_id in self._places:
            self._leave(self._places[item_id])
        place = self._places[item_id] = self._by_key[self._key(item_id)] = len(self._ids)
        self._ids.append(item_id)
        if self._ids.capacity > 64 * len(self._present):
            self._present = np.pad(self._present, (0, self._ids.capacity // 64 - len(self._present)))
        self._present[place >> 6] |= np.uint64(1 << (place & 63))
        self._rows.append(row)
        self._light.append(np.zeros(0, np.float32) if light is None else light)
        self._vectors.append(np.nan if vector is None else vector)
        self._replaced.append(replaced)
        if replaced >= 0:
            self._moved[replaced] = place
        return self._overrides.set(place, attributes)

    def set(self, place: int, attributes: Mapping[str, Any]) -> int:
        """Changes attributes of the item at a place; returns how many the bundle does not have, or not so."""
        self._changed = True
        return self._overrides.set(place, attributes)

    def remove(self, item_id: Id) -> bool:
        """Removes an item; returns whether it was there."""
        place = self._places.pop(item_id, None)
        if place is None:
            return False
        self._by_key.pop(self._key(item_id))
        self._moved.pop(int(self._replaced.view[place]), None)
        self._leave(place)
        self._changed = True
        return True

    def snapshot(self) -> Added | None:
        """All of them as they are now; None: there are none."""
        if self._changed:
            self._snapshot, self._changed = self._made() if self._places else None, False
        return self._snapshot

    def _made(self) -> Added:
        capacity = self._ids.capacity
        present = self._present.copy()  # kept as a set, since looking at all places would cost more with each item
        present.flags.writeable = False
        attributes = None
        if (catalogue := self._catalogue) is not None:
            replaced = self._replaced.view
            attributes = LiveCatalogue(
                catalogue.columns,
                capacity,
                lambda comparison: _inherited(catalogue, replaced, capacity, comparison),
                self._overrides.layers(),
            )
        return Added(
            self._first,
            self._ids.view,
            self._rows.view,
            self._light.view,
            self._vectors.view,
            present,
            attributes,
            self._by_key,
            self._moved,
            self._move,
        )

    def _leave(self, place: int) -> None:
        self._present[place >> 6] &= ~np.uint64(1 << (place & 63))

    def _key(self, item_id: Id) -> int:
        return int(self._id_kind.keys(np.array([item_id], self._id_kind.dtype))[0])

    def _move_together(self) -> None:
        """Gives the items new places without gaps between them, in the same order."""
        self._places = dict(sorted(self._places.items(), key=lambda item: item[1]))
        old = np.fromiter(self._places.values(), np.intp, len(self._places))
        self._overrides = self._overrides.moved({place: new for new, place in enumerate(old.tolist())})
        self._move += 1
        self._ids, self._replaced = _Growing(self._ids.view[old]), _Growing(self._replaced.view[old])
        self._rows, self._light, self._vectors = (
            _Growing(each.view[old]) for each in (self._rows, self._light, self._vectors)
        )
        self._places = dict(zip(self._places, range(len(old)), strict=True))
        self._by_key = dict(zip(self._id_kind.keys(self._ids.view).tolist(), range(len(old)), strict=True))
        self._moved = {item: place for place, item in enumerate(self._replaced.view.tolist()) if item >= 0}
        self._present = item_sets.of_items(np.arange(len(old), dtype=np.int32), self._ids.capacity)


def _inherited(catalogue: Catalogue, replaced: Int32Array, capacity: int, comparison: Comparison) -> Uint64Array:
    """The places whose replaced item matches in the bundle."""
    matching = item_sets.contains(catalogue.compile(comparison)[None], replaced[None])[0]
    return item_sets.of_items(np.flatnonzero(matching).astype(np.int32), capacity)


class _Growing(Generic[Scalar]):
    """Rows that are appended, behind a copy of some. A view of them stays what it is."""

    def __init__(self, rows: npt.NDArray[Scalar]) -> None:
        capacity = _FIRST_CAPACITY
        while capacity < len(rows):
            capacity *= 2
        self._rows: npt.NDArray[Scalar] = np.empty((capacity, *rows.shape[1:]), rows.dtype)
        self._rows[: len(rows)] = rows
        self._used = len(rows)

    def __len__(self) -> int:
        return self._used

    @property
    def capacity(self) -> int:
        """How many rows fit before it grows."""
        return len(self._rows)

    @property
    def view(self) -> npt.NDArray[Scalar]:
        """The rows so far; not to be written to."""
        view = self._rows[: self._used]
        view.flags.writeable = False
        return view

    def append(self, row: Any) -> None:
        """Adds a row."""
        if self._used == len(self._rows):
            grown = np.empty((2 * self._used, *self._rows.shape[1:]), self._rows.dtype)
            grown[: self._used] = self._rows
            self._rows = grown
        self._rows[self._used] = row
        self._used += 1
