"""A bundle with a journal's changes, against a dictionary of items."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.changing_bundle import IDS, ITEMS, LIGHT_WIDTH, OF_ITEMS, ROW_WIDTH, VECTOR_WIDTH, make_bundle
from support.filter_oracle import FILTERS, matches, written

from nann import item_sets
from nann.catalog import Changes, JournalReader, JournalWriter, LiveCorpus, LiveIndex, Upsert, compacted, overrides
from nann.catalog.changes import model_of
from nann.errors import FilterError, JournalError, RequestError
from nann.item_encoder import PlacedItems

BUNDLE = make_bundle(Path(tempfile.mkdtemp()) / "bundle")
MODEL = model_of(BUNDLE.manifest)
SOME_IDS = [*IDS[:6], 1, 2, 3, 4]
VALUES = {
    "genre": st.sampled_from(["jazz", "never seen", None]),
    "tags": st.sampled_from([["new"], ["live", "fresh"], [], None]),
    "year": st.sampled_from([1959, 2**62 + 1, -3, None]),
    "price": st.sampled_from([5.0, 9.5, 1e300, None]),
    "available": st.sampled_from([True, False, None]),
}
ATTRIBUTES = st.fixed_dictionaries({}, optional=VALUES)
UPSERT = st.tuples(st.just("upsert"), st.sampled_from(SOME_IDS), ATTRIBUTES, st.booleans())
DELETE = st.tuples(st.just("delete"), st.sampled_from(SOME_IDS))


class Model:
    """What the changes mean, item by item."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {
            item_id: {"values": dict(values), "row": None} for item_id, values in zip(IDS, OF_ITEMS, strict=True)
        }
        self.unplaced: dict[int, dict[str, Any]] = {}

    def upsert(self, item_id: int, attributes: dict[str, Any], row: Any) -> None:
        item = self.items.get(item_id)
        if item is None and item_id in IDS:
            item = self.items[item_id] = {"values": dict(OF_ITEMS[IDS.index(item_id)]), "row": None}
        if item is None and row is None:
            self.unplaced.setdefault(item_id, {}).update(attributes)
            return
        if item is None:
            item = self.items[item_id] = {"values": self.unplaced.pop(item_id, {})}
        item["values"].update(attributes)
        if row is not None:
            item["row"] = row

    def delete(self, item_id: int) -> None:
        self.items.pop(item_id, None)
        self.unplaced.pop(item_id, None)


def changes_of(operations: list, number: int, model: str = MODEL) -> Changes:
    """One batch with these operations; of those with the same id the last."""
    last = {each[1]: each for each in operations}.values()
    upserted = [
        Upsert(each[1], each[2], *(vectors(number + each[1]) if each[3] else ()))
        for each in last
        if each[0] == "upsert"
    ]
    return Changes(float(number), upserted, [each[1] for each in last if each[0] == "delete"], model)


def vectors(number: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(ROW_WIDTH, number, np.float32), np.full(LIGHT_WIDTH, -number, np.float32)


def ids_matching(corpus: LiveCorpus, text: str) -> set[int]:
    snapshot = corpus.refresh()
    base = snapshot.attributes.compile(text)
    if snapshot.removed is not None:
        base = base & ~snapshot.removed
    found = set(corpus.id_of(item_sets.members(base), snapshot.added).tolist())
    if snapshot.added is not None:
        places = item_sets.members(snapshot.added.attributes.compile(text) & snapshot.added.present)
        found |= set(corpus.id_of(places + snapshot.added.first, snapshot.added).tolist())
    return found


def check(corpus: LiveCorpus, model: Model, filters: list) -> None:
    snapshot = corpus.refresh()
    asked = [*IDS, 1, 2, 3, 4, 5]
    indices = corpus.index_of(asked)
    assert {item_id for item_id, index in zip(asked, indices, strict=True) if index >= 0} == set(model.items)
    assert corpus.item_count == len(model.items)
    assert corpus.counts.unplaced == len(model.unplaced)
    assert all(corpus.is_unplaced(item_id) for item_id in model.unplaced)
    known = indices[indices >= 0]
    assert corpus.id_of(known, snapshot.added).tolist() == [i for i, at in zip(asked, indices, strict=True) if at >= 0]
    for item_id, index in zip(asked, indices.tolist(), strict=True):
        row = model.items.get(item_id, {}).get("row")
        assert (row is not None) == (index >= ITEMS)
        if row is not None:
            np.testing.assert_array_equal(snapshot.added.rows[index - snapshot.added.first], row[0])
            np.testing.assert_array_equal(snapshot.added.light[index - snapshot.added.first], row[1])
    if snapshot.added is not None:
        base = corpus.base_indices(asked)
        both = (base >= 0) & (indices >= 0)
        assert snapshot.added.instead_of(base)[both].tolist() == indices[both].tolist()
        assert (snapshot.added.instead_of(base)[~both] == base[~both]).all(), "nothing is in the place of what is gone"
    for filter_ in filters:
        expected = {item_id for item_id, item in model.items.items() if matches(filter_, item["values"])}
        assert ids_matching(corpus, written(filter_)) == expected, written(filter_)


@pytest.mark.parametrize("small", [1, 4096])
@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(st.lists(UPSERT | DELETE, min_size=1, max_size=4), max_size=12),
    filters=st.lists(FILTERS, min_size=1, max_size=3),
    compact_at=st.integers(0, 12),
)
def test_changes_mean_what_they_say(small, batches, filters, compact_at):
    model = Model()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(overrides, "_SMALL", small)
        path = Path(folder) / "journal"
        with contextlib.closing(JournalWriter(path)) as writer:
            following, now_and_then, kept = LiveCorpus(BUNDLE, path), LiveCorpus(BUNDLE, path), []
            for number, batch in enumerate(batches):
                changes = changes_of(batch, number)
                writer.append(changes.pack())
                for upsert in changes.upserted:
                    model.upsert(
                        upsert.id, dict(upsert.attributes), None if upsert.row is None else (upsert.row, upsert.light)
                    )
                for item_id in changes.deleted:
                    model.delete(item_id)
                check(following, model, filters)
                kept.append(copied(following.refresh(), filters))
                if number % 3 == 0:
                    now_and_then.refresh()
                if number == compact_at:
                    with contextlib.closing(JournalReader(path)) as reader:
                        writer.replace(compacted(reader.new(), 0))
            for corpus in (now_and_then, LiveCorpus(BUNDLE, path)):
                check(corpus, model, filters)
            for snapshot, before in kept:
                assert described(snapshot, filters) == before, "a snapshot stays what it is"


def copied(snapshot, filters):
    return snapshot, described(snapshot, filters)


def described(snapshot, filters):
    texts = [written(filter_) for filter_ in filters]
    found = [None if snapshot.removed is None else snapshot.removed.tolist(), snapshot.sequence]
    found += [snapshot.attributes.compile(text).tolist() for text in texts]
    if (added := snapshot.added) is not None:
        found += [added.ids.tolist(), added.rows.tolist(), added.light.tolist(), added.present.tolist()]
        found += [(added.attributes.compile(text) & added.present).tolist() for text in texts]
    return found


@pytest.fixture
def journal(tmp_path):
    with contextlib.closing(JournalWriter(tmp_path / "journal")) as writer:
        yield writer


def put(journal, *operations, model=MODEL):
    return journal.append(changes_of(list(operations), journal.sequence, model).pack())


def test_nothing_new_costs_one_look(journal):
    corpus = LiveCorpus(BUNDLE, journal.path)
    put(journal, ("upsert", 1, {"genre": "jazz"}, True))
    snapshot = corpus.refresh()
    assert corpus.refresh() is snapshot
    put(journal, ("delete", 2))
    assert corpus.refresh().attributes is snapshot.attributes, "what it has compiled is kept"
    assert corpus.refresh().added is snapshot.added


def test_before_the_first_change(tmp_path):
    corpus = LiveCorpus(BUNDLE, tmp_path / "none")
    snapshot = corpus.refresh()
    assert (snapshot.sequence, snapshot.removed, snapshot.added) == (0, None, None)
    assert snapshot.attributes is BUNDLE.attributes


def test_many_changes_make_few_layers_and_many_additions_move_together(journal):
    corpus = LiveCorpus(BUNDLE, journal.path)
    for number in range(200):
        put(journal, ("upsert", IDS[number % 25], {"year": number}, False), ("upsert", number % 3 + 1, {}, True))
        snapshot = corpus.refresh()
        assert len(snapshot.attributes._layers["year"]) <= 4
    assert len(snapshot.added) <= 2 * (3 + 64)
    assert item_sets.count(snapshot.added.present) == 3
    assert ids_matching(corpus, "year = 199") == {IDS[199 % 25]}
    assert ids_matching(corpus, "year between 175 and 199") == set(IDS[:25])


def test_another_bundle_drops_what_it_contains_and_uses_no_vectors_of_other_models(journal, tmp_path):
    put(journal, ("delete", IDS[0]), ("upsert", IDS[1], {"genre": "old"}, False))
    put(journal, ("upsert", IDS[2], {"genre": "own"}, True), ("upsert", 1, {"genre": "own"}, True))
    put(journal, ("upsert", IDS[3], {"genre": "later"}, False))
    contains = make_bundle(tmp_path / "contains", journal_sequence=1)
    corpus = LiveCorpus(contains, journal.path)
    assert ids_matching(corpus, 'genre in ("old", "own", "later")') == {IDS[2], 1, IDS[3]}
    assert corpus.index_of([IDS[0]])[0] == 0
    other = make_bundle(tmp_path / "other", onnx_files=False)
    assert model_of(other.manifest) != MODEL
    corpus = LiveCorpus(other, journal.path)
    assert ids_matching(corpus, 'genre in ("old", "own", "later")') == {IDS[1], IDS[2], IDS[3]}
    assert corpus.refresh().added is None
    assert (corpus.counts.unplaced, corpus.is_unplaced(1)) == (1, True)


class Encoder:
    """Makes an item's year its vectors; a year of 13 it can't read."""

    def encode(self, items):
        years = [item.get("year", 0) for item in items]
        if 13 in years:
            raise RequestError("13 came")
        rows = np.array([[year] * ROW_WIDTH for year in years], np.float32)
        return PlacedItems(rows, -rows[:, :LIGHT_WIDTH], np.full((len(items), VECTOR_WIDTH), 5, np.float32), 0)


def test_an_item_that_the_encoder_placed_moves_with_its_attributes(journal):
    put(journal, ("upsert", 1, {"year": 7, "genre": "new"}, False), ("upsert", 2, {"year": 7}, True))
    corpus = LiveCorpus(BUNDLE, journal.path, Encoder())

    def vectors_of(item_id):
        added = corpus.refresh().added
        (index,) = corpus.index_of([item_id]) - added.first
        return added.rows[index].tolist(), added.light[index].tolist(), index

    *_, before = vectors_of(1)
    put(journal, ("upsert", 1, {"genre": "old"}, False))
    assert vectors_of(1) == ([7] * 3, [-7] * 2, before), "it stays where nothing changes"
    put(journal, ("upsert", 1, {"year": 9}, False), ("upsert", 2, {"year": 9}, False))
    assert vectors_of(1)[:2] == ([9] * 3, [-9] * 2)
    assert vectors_of(2)[0] != [9] * 3, "vectors that came are not the encoder's"
    assert ids_matching(corpus, 'year = 9 and genre = "old"') == {1}
    put(journal, ("upsert", 1, {"year": 13}, False))
    assert vectors_of(1)[0] == [9] * 3
    assert ids_matching(corpus, "year = 13") == {1}
    put(journal, ("delete", 1))
    put(journal, ("upsert", 1, {"year": 4}, True))
    put(journal, ("upsert", 1, {"year": 5}, False))
    assert vectors_of(1)[0] != [5] * 3, "from now on it has vectors of its own"
    assert corpus.counts.added == 2


def test_an_encoder_places_what_has_no_vectors(journal):
    put(journal, ("upsert", 1, {"year": 7}, False), ("upsert", IDS[0], {"year": 8}, False))
    corpus = LiveCorpus(BUNDLE, journal.path, Encoder())
    added = corpus.refresh().added
    assert (added.ids.tolist(), added.rows.tolist(), added.light.tolist()) == ([1], [[7] * 3], [[-7] * 2])
    assert added.vectors.tolist() == [[5] * VECTOR_WIDTH]
    assert ids_matching(corpus, "year in (7, 8)") == {1, IDS[0]}


def test_a_vector_for_the_graph_counts_where_it_has_the_width(journal, tmp_path):
    upsert = Upsert(1, {}, np.ones(ROW_WIDTH, np.float32), np.ones(LIGHT_WIDTH, np.float32), np.ones(VECTOR_WIDTH))
    journal.append(Changes(1.5, [upsert], (), MODEL).pack())
    assert LiveCorpus(BUNDLE, journal.path).refresh().added.vectors.tolist() == [[1] * VECTOR_WIDTH]
    narrow = make_bundle(tmp_path / "narrow", vector_dim=2)
    assert np.isnan(LiveCorpus(narrow, journal.path).refresh().added.vectors).all()


def test_the_first_added_items_copy_no_codes(journal):
    index = LiveIndex(BUNDLE)
    corpus, base = LiveCorpus(BUNDLE, journal.path), BUNDLE.index.light_codes.codes
    for item_id in (1, 2):
        put(journal, ("upsert", item_id, {}, True))
        codes = index.of(corpus.refresh().added)[0].light_codes.codes
        assert np.shares_memory(codes, base)
        np.testing.assert_array_equal(codes[:ITEMS], base)
        assert codes[corpus.index_of([item_id])[0]].any()


def test_attributes_that_a_bundle_does_not_have_are_counted(journal):
    put(journal, ("upsert", IDS[0], {"colour": "red", "year": "text", "genre": "new"}, False))
    put(journal, ("upsert", 1, {"colour": "red"}, True), ("upsert", 2, {"colour": "red"}, True))
    corpus = LiveCorpus(BUNDLE, journal.path)
    assert ids_matching(corpus, 'genre = "new"') == {IDS[0]}
    assert corpus.counts.unknown_attributes == 4
    for catalogue in (corpus.refresh().attributes, corpus.refresh().added.attributes):
        with pytest.raises(FilterError, match="got 'colour'; expected an attribute of the items: genre, tags"):
            catalogue.compile('colour = "red"')


def test_a_change_that_can_not_be_applied_stops_all_answers(journal):
    corpus = LiveCorpus(BUNDLE, journal.path)
    put(journal, ("delete", IDS[0]))
    journal.append(changes_of([("delete", IDS[1])], 1).pack().replace(b'"format":1', b'"format":9'))
    for _ in range(2):
        with pytest.raises(JournalError, match="a record of the journal has format 9"):
            corpus.refresh()


def test_a_bundle_without_attributes_knows_deletes(journal, tmp_path):
    from support import tiny_bundle

    bundle = tiny_bundle.make_bundle(tmp_path / "plain")
    put(journal, ("delete", IDS[4]), ("delete", 5), ("upsert", IDS[5], {"price": 3}, False))
    corpus = LiveCorpus(bundle, journal.path)
    snapshot = corpus.refresh()
    assert item_sets.members(snapshot.removed).tolist() == [4]
    assert snapshot.attributes is None
    assert corpus.counts.unknown_attributes == 1
