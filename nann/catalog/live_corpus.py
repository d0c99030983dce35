"""A bundle's items with the changes of a journal applied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.bundle import Bundle
from nann.errors import RequestError
from nann.filters import Catalogue
from nann.filters.columns import Uint64Array
from nann.item_encoder import ItemEncoder
from nann.kernels import Int32Array
from nann.manifest import JOURNAL_SEQUENCE
from nann.search_input import UnlinkedItems
from nann.signature import PADDING_ITEM

from .added_items import Added, AddedItems
from .changes import Changes, Float32Array, Id, Upsert, model_of
from .journal import JournalReader
from .overrides import LiveCatalogue, Overrides


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The corpus as one batch of requests sees it; it stays what it is.

    Attributes:
        sequence: of the last change in it.
        removed: `uint64[W]`, the bundle's items that were deleted, or replaced by an added one; None: there are none.
        attributes: of the bundle's N items, for filters; None where they have none.
        added: items that the bundle does not have, or not with these vectors; None: there are none.
    """

    sequence: int
    removed: Uint64Array | None
    attributes: Catalogue | None
    added: Added | None


@dataclass
class Counts:
    """What a `LiveCorpus` holds, for people and metrics.

    Attributes:
        deleted: items of the bundle that were deleted.
        replaced: items of the bundle in whose place an added one is.
        added: items in places behind the bundle's, `replaced` ones among them.
        changed: items of the bundle with other attributes than there.
        unplaced: items that the bundle does not have, and that came without vectors for its models: not searched.
        unknown_attributes: values that the bundle has no attribute for, or of another type; they were left out.
        newest_s: when the last change came, in seconds since 1970; 0 before the first.
    """

    deleted: int = 0
    replaced: int = 0
    added: int = 0
    changed: int = 0
    unplaced: int = 0
    unknown_attributes: int = 0
    newest_s: float = 0.0


class LiveCorpus:
    """The items of one bundle as the changes in a journal leave them.

    Changes up to the bundle's `JOURNAL_SEQUENCE` are in its data and left out. Vectors for other models than the
    bundle's are of no use: an item of the bundle then keeps the bundle's vectors, and another one is `unplaced`.

    Args:
        bundle: with item ids and attributes.
        journal: the file, which need not exist.
        encoder: makes vectors of items that have none for this bundle.
    """

    def __init__(self, bundle: Bundle, journal: Path, encoder: ItemEncoder | None = None) -> None:
        self.bundle = bundle
        self.model = model_of(bundle.manifest)
        self.row_width = bundle.item_row_width
        self.light_width = 0 if bundle.light_vectors is None else bundle.light_vectors.shape[1]
        self.vector_width = int(bundle.manifest.get("vector_dim", 0))
        self.contained = int(bundle.manifest.get(JOURNAL_SEQUENCE, 0))
        self.counts = Counts()
        self.reader = JournalReader(journal)
        self._encoder = encoder
        self._first = UnlinkedItems.first_after(bundle.item_count)
        self._catalogue = bundle.attributes
        self._base = _BaseItems(
            bundle.item_count, Overrides({} if self._catalogue is None else self._catalogue.columns)
        )
        self._added = AddedItems(
            self._catalogue, (self.row_width, self.light_width, self.vector_width), bundle.id_kind, self._first
        )
        self._unplaced: dict[Id, dict[str, Any]] = {}
        self._encoded: set[Id] = set()  # added items whose vectors the encoder made
        self._failure: Exception | None = None
        self._snapshot = Snapshot(0, None, self._catalogue, None)

    def refresh(self, check: Callable[[Changes], None] | None = None) -> Snapshot:
        """Applies what is new in the journal. Where nothing is, this takes one look at the file.

        `check` is called with each batch of changes before it is applied, and may raise.

        Raises:
            JournalError: if the journal is damaged, or of a later release.
        """
        if self._failure is not None:  # what it applied of a batch is no state of the corpus
            raise self._failure
        records = self.reader.new()
        if records:
            try:
                for record in records:
                    changes = Changes.unpack(record.payload)
                    if check is not None:
                        check(changes)
                    if record.sequence > self.contained:
                        self._apply(changes)
                    self.counts.newest_s = changes.time_s
                self._snapshot = self._made()
            except Exception as error:
                self._failure = error
                raise
        return self._snapshot

    @property
    def item_count(self) -> int:
        """How many items there are now."""
        counts = self.counts
        return self.bundle.item_count - counts.deleted - counts.replaced + counts.added

    @property
    def places_items(self) -> bool:
        """Whether new items need no vectors."""
        return self._encoder is not None

    def growth(self, upserts: Sequence[Upsert]) -> tuple[int, int]:
        """How many more items are added, and how many more are changed, once these are applied; at most."""
        added = changed = 0
        for upsert, item in zip(upserts, self.base_indices([each.id for each in upserts]).tolist(), strict=True):
            if self._added.place(upsert.id) is None:
                added += upsert.row is not None or item == PADDING_ITEM
                changed += upsert.row is None and item != PADDING_ITEM and item not in self._base.changed
        return added, changed

    def base_indices(self, ids: Sequence[Id]) -> Int32Array:
        """The bundle's item index of each id, also of a removed item; -1: the bundle does not have it."""
        return self.bundle.features.item_indices(_array(ids, self.bundle.id_kind.dtype))

    def index_of(self, ids: Sequence[Id]) -> Int32Array:
        """The index of each id: the bundle's, or that of its place among the added items; -1: there is none now."""
        found = self.base_indices(ids)
        found[[item in self._base.removed for item in found.tolist()]] = PADDING_ITEM
        for number, item_id in enumerate(ids):
            if (place := self._added.place(item_id)) is not None:
                found[number] = self._first + place
        return found

    def id_of(self, items: Int32Array, added: Added | None) -> npt.NDArray[Any]:
        """External ids of item indices of any shape, those of a snapshot's added items too; -1 is padding."""
        first = self._first
        behind = items >= first
        if added is None or not behind.any():
            return self.bundle.external_ids(items)
        ids = self.bundle.external_ids(np.where(behind, PADDING_ITEM, items))
        ids[behind] = added.ids[items[behind] - first]
        return ids

    def is_unplaced(self, item_id: Id) -> bool:
        """Whether an item is known without vectors for this bundle's models."""
        return item_id in self._unplaced

    def _apply(self, changes: Changes) -> None:
        for item_id, item in zip(changes.deleted, self.base_indices(changes.deleted).tolist(), strict=True):
            self._added.remove(item_id)
            self._encoded.discard(item_id)
            self._unplaced.pop(item_id, None)
            if item != PADDING_ITEM:
                self._base.delete(item)
        items = self.base_indices([each.id for each in changes.upserted]).tolist()
        unplaced = []
        for upsert, item in zip(changes.upserted, items, strict=True):
            if upsert.row is not None and not self._fits(upsert, changes.model):
                upsert = Upsert(upsert.id, upsert.attributes)
            if upsert.row is not None:
                self._encoded.discard(upsert.id)
                self._put(upsert, item)
            elif (place := self._added.place(upsert.id)) is not None:
                self._change_added(upsert, place)
            elif item != PADDING_ITEM:
                self.counts.unknown_attributes += self._base.set(item, upsert.attributes)
            else:
                unplaced.append(upsert)
        self._without_vectors(unplaced)

    def _fits(self, upsert: Upsert, model: str) -> bool:
        return model == self.model and upsert.row is not None and len(upsert.row) == self.row_width

    def _put(self, upsert: Upsert, item: int) -> None:
        """Puts an item with vectors among the added ones, with the attributes that it had."""
        assert upsert.row is not None
        place = self._added.place(upsert.id)
        if place is not None:
            had = self._added.attributes(place)
        elif item != PADDING_ITEM:
            had = self._base.replace(item)
        else:
            had = self._unplaced.pop(upsert.id, {})
        attributes = {**had, **upsert.attributes}
        vector = upsert.vector
        if vector is not None and len(vector) != self.vector_width:  # the same models, and a graph of other vectors
            vector = None
        unknown = self._added.put(upsert.id, attributes, upsert.row, upsert.light, vector, item)
        self.counts.unknown_attributes += unknown

    def _change_added(self, upsert: Upsert, place: int) -> None:
        """Changes attributes of an added item; if its vectors were made of them, it gets new ones."""
        if upsert.id in self._encoded and upsert.attributes:
            placed = self._placed({**self._added.attributes(place), **upsert.attributes})
            if placed is not None and not np.array_equal(placed[0], self._added.row(place)):
                self._put(Upsert(upsert.id, upsert.attributes, *placed), PADDING_ITEM)
                return
        self.counts.unknown_attributes += self._added.set(place, upsert.attributes)

    def _without_vectors(self, upserts: Sequence[Upsert]) -> None:
        for upsert in upserts:
            self._unplaced[upsert.id] = {**self._unplaced.get(upsert.id, {}), **upsert.attributes}
            if (placed := self._placed(self._unplaced[upsert.id])) is not None:
                self._put(Upsert(upsert.id, {}, *placed), PADDING_ITEM)
                self._encoded.add(upsert.id)

    def _placed(self, attributes: Mapping[str, Any]) -> tuple[Float32Array, Float32Array | None, Float32Array] | None:
        """Row, light vector and e_v that the encoder makes of attributes; None: it makes none."""
        if self._encoder is None:
            return None
        with contextlib.suppress(RequestError):  # values that another bundle's attributes had
            placed = self._encoder.encode([attributes])
            return placed.rows[0], None if placed.light is None else placed.light[0], placed.vectors[0]
        return None

    def _made(self) -> Snapshot:
        catalogue, base, counts = self._catalogue, self._base, self.counts
        counts.deleted, counts.replaced = len(base.removed) - len(base.replaced), len(base.replaced)
        counts.added, counts.changed, counts.unplaced = len(self._added), len(base.changed), len(self._unplaced)
        attributes = self._snapshot.attributes
        if catalogue is not None and base.has_new_attributes:
            base.has_new_attributes, layers = False, base.overrides.layers()
            attributes = LiveCatalogue(catalogue.columns, catalogue.item_count, catalogue.compile, layers)
        return Snapshot(self.reader.sequence, base.removed_set(), attributes, self._added.snapshot())


@dataclass
class _BaseItems:
    """What was changed of the bundle's items.

    Attributes:
        item_count: N.
        overrides: of their attributes.
        removed: items that are not there, or not in their place.
        replaced: those of them that are among the added items.
        changed: items with other attributes.
        has_new_attributes: since the last look.
    """

    item_count: int
    overrides: Overrides
    removed: set[int] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    has_new_attributes: bool = False
    _stale: set[int] = field(default_factory=set)
    _set: Uint64Array | None = None

    def __post_init__(self) -> None:
        self._bits = item_sets.none(self.item_count)

    def delete(self, item: int) -> None:
        """Takes an item away."""
        self.replaced.discard(item)
        self._leave(item)

    def replace(self, item: int) -> dict[str, Any]:
        """Takes an item away for an added one, and returns its changed attributes."""
        own = {} if item in self.removed else self.overrides.of(item)
        self.replaced.add(item)
        self._leave(item)
        return own

    def set(self, item: int, attributes: Mapping[str, Any]) -> int:
        """Changes attributes of an item; a deleted one is there again, as in the bundle but for these."""
        if item in self.removed:
            self.removed.discard(item)
            self._bits[item >> 6] &= ~_bit(item)
            self._set = None
        if item in self._stale:
            self._stale.discard(item)
            self.overrides.forget(item)
            self.has_new_attributes = True
        if attributes:
            self.changed.add(item)
            self.has_new_attributes = True
        return self.overrides.set(item, attributes)

    def removed_set(self) -> Uint64Array | None:
        """`uint64[W]` of the removed items, read-only; None: there are none."""
        if self._set is None and self.removed:
            self._set = self._bits.copy()
            self._set.flags.writeable = False
        return self._set if self.removed else None

    def _leave(self, item: int) -> None:
        self.removed.add(item)
        self._bits[item >> 6] |= _bit(item)
        self._set = None
        if item in self.changed:  # its layers stay until it comes back: most do not
            self.changed.discard(item)
            self._stale.add(item)


def _bit(item: int) -> np.uint64:
    return np.uint64(1 << (item & 63))


def _array(ids: Sequence[Id], dtype: Any) -> npt.NDArray[Any]:
    array = np.empty(len(ids), dtype)
    array[:] = ids
    return array
