"""The next bundle from one and the changes of its items, without training (`nann refresh`).

The models stay the same to the byte: the user encoder knows the items that it was trained with, and the scorer takes
the items' rows as an input. What is made anew are the items' arrays, their attributes and the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.array_files import load_array
from nann.bundle import (
    BEHAVIOR_IDS_FILE,
    ITEM_ENCODER_FILE,
    ITEM_IDS_FILE,
    ITEM_NAMES_FILE,
    ITEM_ROWS_FILE,
    ITEM_VECTORS_FILE,
    LIGHT_VECTORS_FILE,
    Bundle,
)
from nann.bundle_check import check_searches
from nann.bundle_notes import without_notes
from nann.catalog import Changes, LiveCorpus, Snapshot
from nann.catalog.added_items import Added
from nann.catalog.checks import check_kind
from nann.catalog.overrides import LiveCatalogue
from nann.durable_files import link_or_copy, new_folder
from nann.errors import BundleError, RequestError
from nann.filters import Catalogue
from nann.filters.catalogue import attribute_files
from nann.graph import graph_files
from nann.item_encoder import ItemEncoder
from nann.item_ids import Ids
from nann.manifest import JOURNAL_SEQUENCE, search_to_json
from nann.reachability import Reachability
from nann.scorer import Float32Array
from nann.scorer_check import SCORER_CHECK_FILE, ScorerCheck
from nann.search_input import SearchIndex
from nann.search_requests import SERVED_BOUNDS
from nann.signature import ENTRY_ALL, ENTRY_LAYERS, ENTRY_SEEDS

from ..config import IndexConfig
from ..export.item_encoder import onnx_encoder
from .index import check_folder, graph_summary
from .nearest import nearest
from .next_attributes import next_catalogue
from .next_graph import next_graph
from .recommended import fitted

Int64Array = npt.NDArray[np.int64]

_CHUNK = 1 << 16
_SIMILAR = 8
"""A new item that came without a vector for the graph is placed between so many items."""
_OF_OLD_ITEMS = ("metrics", "baselines", "half_precision")
"""Notes that say what was measured on the items before."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh made.

    Attributes:
        sequence: of the last change in the bundle.
        items: how many it has.
        added: those that the bundle before did not have.
        replaced: those that have other vectors.
        removed: items of the bundle before that it does not have.
        unplaced: items that came without vectors for its models, and are not in it.
        unreachable: items that no search can reach.
    """

    sequence: int
    items: int
    added: int
    replaced: int
    removed: int
    unplaced: int
    unreachable: int


@dataclass(frozen=True, eq=False)
class _Items:
    """The M items of the next bundle.

    Attributes:
        ids: `int64[M]` or `S[M]`, ascending.
        old: `int64[M]`, the item of the bundle before that each is, with the same vectors; -1: another.
        place: `int64[M]`, its place among the added ones; -1: it is an old one.
    """

    ids: Ids
    old: Int64Array
    place: Int64Array

    @classmethod
    def of(cls, bundle: Bundle, snapshot: Snapshot) -> _Items:
        old = np.arange(bundle.item_count)
        if snapshot.removed is not None:
            old = item_sets.members(item_sets.invert(snapshot.removed, bundle.item_count)).astype(np.int64)
        ids, place = bundle.item_ids[old], np.zeros(0, np.int64)
        if snapshot.added is not None:
            place = item_sets.members(snapshot.added.present).astype(np.int64)
            ids = np.concatenate([ids, bundle.id_kind.stored(snapshot.added.ids[place])])
        order = np.argsort(ids, kind="stable")
        none = np.full(len(ids), -1)
        return cls(
            ids[order],
            np.concatenate([old, none[: len(place)]])[order],
            np.concatenate([none[: len(old)], place])[order],
        )

    def save(self, path: Path, old_rows: Float32Array, added_rows: Float32Array) -> None:
        """Writes a row for each item, in parts: the rows of a large corpus exceed the memory."""
        saved = np.lib.format.open_memmap(path, "w+", np.float32, (len(self.ids), old_rows.shape[1]))
        for start in range(0, len(self.ids), _CHUNK):
            old, place = self.old[start : start + _CHUNK], self.place[start : start + _CHUNK]
            part = saved[start : start + _CHUNK]
            part[old >= 0] = old_rows[old[old >= 0]]
            part[place >= 0] = added_rows[place[place >= 0]]
        saved.flush()


def refresh_bundle(bundle: Bundle, journal: Path, out: Path, *, threads: int = -1) -> Refreshed | None:
    """Writes the bundle that has the changes in a journal, as they are now.

    A new item that came without a vector for the graph is placed between the items that are nearest to it by their
    light vectors; without a light score, by their rows.

    Args:
        bundle: with all its files, and item rows.
        journal: the file (`nann.catalog.journal.journal_path`).
        out: the next bundle's folder, which may be that of `bundle`. It is there as a whole or not at all.
        threads: hnswlib's threads. With 1 thread the same changes give the same graph.

    Returns:
        None: there are no changes that the bundle does not have; nothing was written.

    Raises:
        BundleError: if the bundle has no item rows or no item vectors, no item is left, `out` is not a bundle, or the
            changes are those of a bundle with ids of the other kind.
        JournalError: if the journal is damaged.
    """
    _check(bundle)
    check_folder(out)
    corpus = LiveCorpus(bundle, journal, _encoder(bundle))
    snapshot = corpus.refresh(lambda changes: _check_kind(changes, bundle, journal))
    if snapshot.sequence <= corpus.contained:
        return None
    items = _Items.of(bundle, snapshot)
    if not len(items.ids):
        raise BundleError(f"all {bundle.item_count:,} items of {bundle.path} were deleted; expected one that is left")
    with new_folder(out) as folder:
        missed = _write(folder, bundle, snapshot, items, threads)
    counts = corpus.counts
    return Refreshed(
        sequence=snapshot.sequence,
        items=len(items.ids),
        added=counts.added - counts.replaced,
        replaced=counts.replaced,
        removed=counts.deleted,
        unplaced=counts.unplaced,
        unreachable=missed,
    )


def _check(bundle: Bundle) -> None:
    if bundle.item_rows is None:
        raise BundleError(
            f"the scorer of {bundle.path} has an item table among its weights, which only a new training changes; "
            "expected a bundle of `nann export --item-rows`"
        )
    if ITEM_VECTORS_FILE not in bundle.manifest["files"]:
        raise BundleError(f"{bundle.path} has no {ITEM_VECTORS_FILE}; make the bundle again with `nann index`")


def _check_kind(changes: Changes, bundle: Bundle, journal: Path) -> None:
    try:
        check_kind(changes, bundle.id_kind)
    except RequestError as error:
        raise BundleError(
            f"the changes in {journal} are those of another bundle than {bundle.path}: {error}; name the bundle that "
            "was deployed last"
        ) from error


def _encoder(bundle: Bundle) -> ItemEncoder | None:
    """As the server places items that came without vectors."""
    if ITEM_ENCODER_FILE not in bundle.manifest["files"]:
        return None
    return ItemEncoder(bundle, onnx_encoder(bundle.path / ITEM_ENCODER_FILE))


def _write(folder: Path, bundle: Bundle, snapshot: Snapshot, items: _Items, threads: int) -> int:
    """Writes the bundle; returns how many items no search can reach."""
    assert bundle.item_rows is not None
    rows, light, added = bundle.item_rows.base, bundle.light_vectors, snapshot.added
    np.save(folder / ITEM_IDS_FILE, items.ids, allow_pickle=False)
    items.save(folder / ITEM_ROWS_FILE, rows, _rows_of(added, rows))
    if light is not None:
        items.save(folder / LIGHT_VECTORS_FILE, light, added.light if added is not None else light)
    placed = _placed(bundle, added)
    items.save(folder / ITEM_VECTORS_FILE, bundle.item_vectors, placed)
    vectors = load_array(folder / ITEM_VECTORS_FILE, np.float32, 2)
    config = _index_config(bundle)
    graph = next_graph(bundle.graph, bundle.item_vectors, vectors, items.old, config, threads=threads)
    reachability = Reachability.require(graph)
    searches = [fitted(one, graph.entry_layer) for one in bundle.search_by_entry.values()]
    light_vectors = None if light is None else load_array(folder / LIGHT_VECTORS_FILE, np.float32, 2)
    check_searches(SearchIndex(graph, light_vectors), searches)
    default = _default_entry(bundle, len(items.ids))
    others = [one for one in searches if one.entry not in (default, ENTRY_ALL)]
    written = [ITEM_IDS_FILE, ITEM_ROWS_FILE, ITEM_VECTORS_FILE, *graph.save(folder)]
    written += [LIGHT_VECTORS_FILE] if light is not None else []
    entries: dict[str, Any] = {
        "item_count": len(items.ids),
        "graph": {**bundle.manifest["graph"], **graph_summary(graph, config)},
        "search": search_to_json(next(one for one in searches if one.entry == default)),
        "search_by_entry": {one.entry: search_to_json(one) for one in others},
        JOURNAL_SEQUENCE: snapshot.sequence,
    }
    if bundle.attributes is not None:
        entries["attributes"], files = _attributes(bundle, snapshot, items).save(folder)
        written += files
    written += _names(folder, bundle, items)
    if SCORER_CHECK_FILE in bundle.manifest["files"]:
        written.append(ScorerCheck.load(bundle.path).renumbered(items.old, bundle.item_count).save(folder))
    _finish(folder, bundle, written, entries, reachability)
    return len(reachability.unreachable)


def _default_entry(bundle: Bundle, item_count: int) -> str:
    """The entry of the default search: as before, unless that scores all items, of which a server now has too many."""
    chosen, most = bundle.search_params.entry, SERVED_BOUNDS.max_ef
    if chosen != ENTRY_ALL or not bundle.item_count <= most < item_count:
        return chosen
    return next(entry for entry in (ENTRY_SEEDS, ENTRY_LAYERS) if entry in bundle.search_by_entry)


def _finish(
    folder: Path, bundle: Bundle, written: list[str], entries: dict[str, Any], reachability: Reachability
) -> None:
    """Adds the files that stay the same, the manifest and the notes."""
    listed = bundle.manifest["files"]
    gone = {
        *graph_files(int(bundle.manifest["graph"]["layer_count"])),
        *attribute_files(bundle.manifest.get("attributes", {})),
    }
    same = {name: entry for name, entry in listed.items() if name not in {*written, *gone}}
    for name in same:
        link_or_copy(bundle.path / name, folder / name)
    if BEHAVIOR_IDS_FILE not in listed:  # from now on the items are others than those that the user encoder knows
        link_or_copy(bundle.path / ITEM_IDS_FILE, folder / BEHAVIOR_IDS_FILE)
        written.append(BEHAVIOR_IDS_FILE)
    made = Bundle(folder, {**without_notes(bundle.manifest), "files": same}).change(written=written, **entries)
    notes = {name: note for name, note in bundle.notes.items() if name not in _OF_OLD_ITEMS}
    refreshed = {"bundle": bundle.bundle_id, JOURNAL_SEQUENCE: entries[JOURNAL_SEQUENCE]}
    made.note(
        **{
            **notes,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "tools": {**notes.get("tools", {}), **{name: version(name) for name in ("nann", "hnswlib", "numpy")}},
            "provenance": {**notes.get("provenance", {}), "refreshed_from": refreshed},
            "reachability": {**notes.get("reachability", {}), **reachability.summary()},
        }
    )


def _index_config(bundle: Bundle) -> IndexConfig:
    given = bundle.manifest["graph"]
    return IndexConfig(**{name: given[name] for name in IndexConfig.model_fields if name in given})


def _rows_of(added: Added | None, like: Float32Array) -> Float32Array:
    return np.zeros((0, like.shape[1]), np.float32) if added is None else added.rows


def _placed(bundle: Bundle, added: Added | None) -> Float32Array:
    """Vectors for the graph, of the added items: `float32[D, d]`."""
    assert bundle.item_rows is not None
    if added is None:
        return np.zeros((0, bundle.item_vectors.shape[1]), np.float32)
    keys, own = bundle.item_rows.base, added.rows
    if bundle.light_vectors is not None:
        keys, own = bundle.light_vectors, added.light
    vectors = np.full((len(added), bundle.item_vectors.shape[1]), np.nan, np.float32)
    if added.vectors.shape == vectors.shape:  # a manifest without the width takes none
        vectors[:] = added.vectors
    without = np.flatnonzero(np.isnan(vectors).any(axis=1))
    similar = nearest(keys, np.arange(len(keys)), own[without], _SIMILAR)  # [n, k]
    vectors[without] = bundle.item_vectors[similar].mean(axis=1)
    return vectors


def _attributes(bundle: Bundle, snapshot: Snapshot, items: _Items) -> Catalogue:
    """The items' attributes. Those of an added item that has the id of an old one begin with the old one's."""
    assert bundle.attributes is not None
    next_of = bundle.id_kind.indices(items.ids, bundle.item_ids).astype(np.int64)
    changed: dict[str, dict[int, Any]] = {}
    sources = [(snapshot.attributes, items.old)]
    if snapshot.added is not None:
        sources.append((snapshot.added.attributes, items.place))
    for catalogue, before in sources:
        known = np.flatnonzero(before >= 0)
        at = dict(zip(before[known].tolist(), known.tolist(), strict=True))
        for name, values in (catalogue.values if isinstance(catalogue, LiveCatalogue) else {}).items():
            own = changed.setdefault(name, {})
            own.update({at[item]: value for item, value in values.items() if item in at})
    return next_catalogue(bundle.attributes, next_of, changed, len(items.ids))


def _names(folder: Path, bundle: Bundle, items: _Items) -> list[str]:
    """Writes the items' names, if the old ones have some; that of a new one is its id."""
    names = bundle.item_names
    if names is None:
        return []
    kind = bundle.id_kind
    known = kind.indices(bundle.item_ids, items.ids).tolist()
    own = (str(item_id).replace("\n", " ") for item_id in kind.plain(items.ids))
    lines = [name if item < 0 else names[item] for item, name in zip(known, own, strict=True)]
    (folder / ITEM_NAMES_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [ITEM_NAMES_FILE]
