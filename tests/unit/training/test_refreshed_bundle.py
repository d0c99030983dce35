"""The next bundle from one and its journal: what it holds, item by item."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support import native_bundle
from support.live_bundle import DIM, ITEMS, attributes, make_bundle, text_ids

from nann import Bundle, UserBatch, beam_search, item_sets
from nann.bundle import BEHAVIOR_IDS_FILE, ITEM_ENCODER_FILE, ITEM_FIELDS_FILE, ITEM_VECTORS_FILE
from nann.bundle_check import check_servable
from nann.catalog import Changes, JournalWriter, LiveCorpus, Upsert
from nann.catalog.changes import model_of
from nann.durable_files import write_json
from nann.errors import BundleError
from nann.manifest import search_to_json
from nann.native_scorer import NATIVE_SCORER_FILE
from nann.scorer_check import ScorerCheck
from nann.search_requests import SERVED_BOUNDS
from nann.signature import ENCODED_LIGHT, ENCODED_ROW, ENCODED_VECTOR
from nann.training.scorers import OnnxScorer, OnnxUserEncoder
from nann.training.search.planted_bundle import onnx_model
from nann.training.search.refresh import refresh_bundle

IDS = np.arange(ITEMS) * 3 + 1000
NEW = [1, 1001, 10**9]
"""Ids before, between and behind those of the bundle."""
DELETED = IDS[[0, 5, 3999]].tolist()
OTHER_ROW, OTHER_PRICE = int(IDS[20]), int(IDS[21])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return native_bundle.make_bundle(tmp_path_factory.mktemp("live") / "bundle", item_rows=True)


def vectors_like(bundle: Bundle, item: int) -> dict:
    """Row and light vector of an item that is like this one, and better for everyone who likes it."""
    return {"row": 1.5 * bundle.item_rows.base[item], "light": 1.5 * bundle.light_vectors[item]}


def write(journal, bundle, *batches) -> None:
    writer = JournalWriter(journal)
    for upserted, deleted in batches:
        writer.append(Changes(time.time(), upserted, deleted, model_of(bundle.manifest)).pack())
    writer.close()


@pytest.fixture(scope="module")
def changed(bundle, tmp_path_factory):
    """The bundle's journal, and the next bundle."""
    folder = tmp_path_factory.mktemp("refreshed")
    journal = folder / "journal"
    write(
        journal,
        bundle,
        ([Upsert(NEW[1], {"price": 3.5, "tag": ["new", "red"]}, **vectors_like(bundle, 100))], ()),
        ([Upsert(NEW[0], {"available": True}, **vectors_like(bundle, 200)), Upsert(OTHER_PRICE, {"price": None})], ()),
        ([Upsert(OTHER_ROW, {"brand": "Own"}, **vectors_like(bundle, 300))], DELETED),
        ([Upsert(NEW[2], {}, **vectors_like(bundle, 300)), Upsert(777, {"price": 1.0})], ()),
    )
    made = refresh_bundle(bundle, journal, folder / "next", threads=1)
    return journal, Bundle.open(folder / "next"), made


def test_it_says_what_it_made(changed):
    _, after, made = changed
    assert (made.sequence, made.items, made.unplaced) == (4, ITEMS, 1)
    assert (made.added, made.replaced, made.removed) == (3, 1, 3)
    assert after.manifest["journal_sequence"] == 4
    assert after.notes["provenance"]["refreshed_from"]["journal_sequence"] == 4
    check_servable(after)


def test_engines_are_compared_on_the_items_that_stay(bundle, changed):
    before, now = ScorerCheck.load(bundle.path), ScorerCheck.load(changed[1].path)
    for old, new in zip(before.candidates, now.candidates, strict=True):
        kept = [each for each in bundle.item_ids[old[old >= 0]].tolist() if each not in {*DELETED, OTHER_ROW}]
        assert changed[1].item_ids[new[new >= 0]].tolist() == kept
    scores = OnnxScorer.of_bundle(changed[1]).score(now.user_states, np.maximum(now.candidates, 0))
    np.testing.assert_allclose(now.scores[now.candidates >= 0], scores[now.candidates >= 0], rtol=1e-5, atol=1e-5)
    assert NATIVE_SCORER_FILE in changed[1].manifest["files"]


def test_every_item_has_its_vectors(bundle, changed):
    _, after, _ = changed
    expected = sorted({*IDS.tolist(), *NEW} - set(DELETED))
    np.testing.assert_array_equal(after.item_ids, expected)
    like = {NEW[0]: 200, NEW[1]: 100, NEW[2]: 300, OTHER_ROW: 300}
    rows = [
        1.5 * bundle.item_rows.base[like[each]] if each in like else bundle.item_rows.base[(each - 1000) // 3]
        for each in expected
    ]
    np.testing.assert_array_equal(after.item_rows.base, rows)
    light = [
        1.5 * bundle.light_vectors[like[each]] if each in like else bundle.light_vectors[(each - 1000) // 3]
        for each in expected
    ]
    np.testing.assert_array_equal(after.light_vectors, light)
    same = [place for place, each in enumerate(expected) if each not in like]
    old = [(expected[place] - 1000) // 3 for place in same]
    np.testing.assert_array_equal(after.item_vectors[same], bundle.item_vectors[old])
    assert after.item_names[:4] == ["1", "1001", "item 1", "item 2"]


FILTERS = [
    "price < 10", "price = 3.5", "not price > 5", 'tag = "new"', 'tag = "red"', 'brand = "Own"', 'brand = "National"',
    "available", "not available", 'department in ("PRODUCE", "DRUG GM") and available', 'tag = "adult" or price >= 99',
]  # fmt: skip


@pytest.mark.parametrize("text", FILTERS)
def test_filters_match_the_same_items_as_before(bundle, changed, text):
    journal, after, _ = changed
    live = LiveCorpus(bundle, journal)
    snapshot = live.refresh()
    kept = item_sets.invert(snapshot.removed, ITEMS)
    old = bundle.item_ids[item_sets.members(snapshot.attributes.compile(text) & kept)]
    added = item_sets.members(snapshot.added.attributes.compile(text) & snapshot.added.present)
    expected = {*old.tolist(), *snapshot.added.ids[added[added < len(snapshot.added)]].tolist()}
    assert set(after.item_ids[item_sets.members(after.attributes.compile(text))].tolist()) == expected


def search(bundle: Bundle, history: list[int]) -> list[int]:
    behaviors, _ = bundle.features.behaviors(np.array([history]))
    states = OnnxUserEncoder(bundle.path / "user_encoder.onnx").encode(behaviors, np.zeros((1, 1), np.int32))
    users = UserBatch(states, bundle.features.own_items(behaviors))
    found = beam_search(bundle.index, OnnxScorer.of_bundle(bundle), users, bundle.search_by_entry["seeds"])
    return bundle.external_ids(found.items)[0].tolist()


def test_a_user_with_a_deleted_item_is_the_same_user(bundle, changed):
    """The user encoder knows the items that it was trained with, under their old numbers."""
    _, after, _ = changed
    histories = np.array([[DELETED[0], IDS[10], NEW[0], DELETED[1], OTHER_ROW, IDS[-2]]])
    before, now = (each.features.behaviors(histories) for each in (bundle, after))
    np.testing.assert_array_equal(before[0], now[0])
    assert now[1].tolist() == before[1].tolist() == [[1]], "the new item stays unknown"
    own = after.external_ids(after.features.own_items(now[0]))[0]
    assert own[own >= 0].tolist() == [IDS[10], OTHER_ROW, IDS[-2]]


@pytest.mark.parametrize(("item", "new"), [(100, NEW[1]), (200, NEW[0]), (300, NEW[2]), (300, OTHER_ROW)])
def test_a_search_finds_new_items_first(changed, item, new):
    _, after, _ = changed
    assert new in search(after, [int(IDS[item])])[:3]


def test_the_models_stay_the_same_to_the_byte(bundle, changed):
    journal, after, _ = changed
    for name in ("user_encoder.onnx", "scorer.onnx"):
        assert after.manifest["files"][name] == bundle.manifest["files"][name]
    assert model_of(after.manifest) == model_of(bundle.manifest), "vectors that came for it still fit"
    live = LiveCorpus(after, journal)
    live.refresh()
    assert (live.counts.added, live.counts.deleted, live.item_count) == (0, 0, ITEMS), "nothing is applied twice"


def test_new_items_that_come_with_a_vector_for_the_graph_have_it(bundle, tmp_path):
    """Given, or made by the item encoder from the attributes."""
    own = make_bundle(tmp_path / "bundle", item_rows=True)
    like = [100, 200, 300]  # an item of an unknown brand, of National, and of Private
    tables = [1.5 * each[like] for each in (own.item_rows.base, own.item_vectors, own.light_vectors)]
    brand = {"name": "brand", "kind": "category", "values": ["National", "Private"], "unknown_code": 0}
    write_json(own.path / ITEM_FIELDS_FILE, {"fields": [{**brand, "first_value_code": 1}], "separator": ""})
    onnx.save(item_encoder(*tables), own.path / ITEM_ENCODER_FILE)
    own = own.change(written=[ITEM_FIELDS_FILE, ITEM_ENCODER_FILE])
    vector = np.arange(DIM, dtype=np.float32)
    write(
        tmp_path / "journal",
        own,
        ([Upsert(5, {"brand": "Private"}), Upsert(6, {"brand": "other"})], ()),
        ([Upsert(7, {}, **vectors_like(own, 50), vector=vector)], ()),
    )
    made = refresh_bundle(own, tmp_path / "journal", tmp_path / "next")
    assert (made.added, made.unplaced) == (3, 0)
    after = Bundle.open(tmp_path / "next")
    for found, table in zip((after.item_rows.base, after.item_vectors, after.light_vectors), tables, strict=True):
        np.testing.assert_allclose(found[:2], table[[2, 0]], rtol=1e-6)
    np.testing.assert_array_equal(after.item_vectors[2], vector)
    assert ITEM_ENCODER_FILE in after.manifest["files"], "later items are placed in the same way"


def item_encoder(*tables: np.ndarray) -> onnx.ModelProto:
    """item_codes int32[M, 1] -> the rows of the tables that the codes name."""
    names = [spec.name for spec in (ENCODED_ROW, ENCODED_VECTOR, ENCODED_LIGHT)]
    constants = {f"{name} table": table for name, table in zip(names, tables, strict=True)}
    nodes = [
        node
        for name in names
        for node in (
            ("Gather", [f"{name} table", "item_codes"], f"{name} rows"),
            ("ReduceSum", [f"{name} rows", "axis"], name, {"keepdims": 0}),
        )
    ]
    outputs = {name: (TensorProto.FLOAT, ["M", table.shape[1]]) for name, table in zip(names, tables, strict=True)}
    codes = {"item_codes": (TensorProto.INT32, ["M", "W"])}
    return onnx_model(nodes, {**constants, "axis": np.array([1], np.int64)}, codes, outputs)


def test_nothing_new_writes_nothing(changed, tmp_path):
    journal, after, _ = changed
    assert refresh_bundle(after, journal, tmp_path / "next") is None
    assert refresh_bundle(after, tmp_path / "no journal", tmp_path / "next") is None
    assert not (tmp_path / "next").exists()


def test_it_may_be_done_again_and_again_in_place(bundle, tmp_path):
    """A deleted item comes back with vectors, a new one goes; the user encoder's items stay those of the training."""
    journal = tmp_path / "journal"
    write(journal, bundle, *[([Upsert(DELETED[0], {}, **vectors_like(bundle, 400))], [NEW[0]])] * 5)
    made = refresh_bundle(bundle, journal, tmp_path / "a")
    assert (made.sequence, made.added, made.replaced, made.removed) == (5, 0, 1, 0)
    write(journal, bundle, ([Upsert(5, {}, **vectors_like(bundle, 50))], IDS[1:2000].tolist()))
    assert refresh_bundle(Bundle.open(tmp_path / "a"), journal, tmp_path / "a").removed == 1999
    last = Bundle.open(tmp_path / "a")
    assert (last.item_count, len(last.features.known_ids)) == (ITEMS - 1998, ITEMS)
    assert np.load(tmp_path / "a" / BEHAVIOR_IDS_FILE).tolist() == IDS.tolist()
    assert DELETED[0] in search(last, [int(IDS[400])])[:3]
    assert 5 in search(last, [int(IDS[50])])[:3]


def test_text_ids(tmp_path):
    own, ids = make_bundle(tmp_path / "bundle", item_rows=True, texts=True), text_ids()
    long = "日本/a new one with an id that is wider than all others"
    upserts = [Upsert("a\nb", {"brand": "Own"}, **vectors_like(own, 100)), Upsert(long, {}, **vectors_like(own, 200))]
    write(tmp_path / "journal", own, (upserts, [ids[0]]))
    refresh_bundle(own, tmp_path / "journal", tmp_path / "next")
    after = Bundle.open(tmp_path / "next")
    check_servable(after)
    expected = sorted({*ids[1:], "a\nb", long}, key=str.encode)
    assert after.id_kind.plain(after.item_ids) == expected
    assert after.item_names[expected.index("a\nb")] == "a b"
    assert after.item_names[expected.index(ids[7])] == "item 7"
    history = np.array([[ids[0], long, ids[50]]], object)
    behaviors, unknown = after.features.behaviors(history)
    assert (behaviors[0, -2:].tolist(), unknown.tolist()) == ([0, 50], [[1]])
    assert after.features.own_items(behaviors)[0, -2:].tolist() == [-1, expected.index(ids[50])]
    (brand,) = item_sets.members(after.attributes.compile('brand = "Own"')).tolist()
    assert expected[brand] == "a\nb"


def test_all_items_may_be_other_ones(bundle, tmp_path):
    upserts = [Upsert(each, {}, **vectors_like(bundle, each)) for each in range(1, 301)]
    write(tmp_path / "journal", bundle, (upserts, IDS.tolist()))
    refresh_bundle(bundle, tmp_path / "journal", tmp_path / "next")
    after = Bundle.open(tmp_path / "next")
    assert after.item_ids.tolist() == list(range(1, 301))
    assert 50 in search(after, [int(IDS[50])])[:3]


def test_what_can_not_be_refreshed(bundle, tmp_path):
    table = make_bundle(tmp_path / "table")
    with pytest.raises(
        BundleError, match=r"table has an item table among its weights, which only a new training changes"
    ):
        refresh_bundle(table, tmp_path / "journal", tmp_path / "next")
    write(tmp_path / "journal", bundle, ([], IDS.tolist()))
    with pytest.raises(BundleError, match=r"all 4,000 items of .* were deleted; expected one that is left"):
        refresh_bundle(bundle, tmp_path / "journal", tmp_path / "next")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"own exists and is not a bundle; choose another folder or remove it"):
        refresh_bundle(bundle, tmp_path / "journal", tmp_path / "own")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text('{"kind": "nann prepared data set"}')
    with pytest.raises(BundleError, match=r"data exists and is not a bundle; choose another folder or remove it"):
        refresh_bundle(bundle, tmp_path / "journal", tmp_path / "data")
    writer = JournalWriter(tmp_path / "text")
    writer.append(Changes(time.time(), (), ["SKU-1"]).pack())
    writer.close()
    with pytest.raises(BundleError, match=r"text are those of another bundle than .*: item 'SKU-1' came; the ids of"):
        refresh_bundle(bundle, tmp_path / "text", tmp_path / "next")
    served = Bundle(bundle.path, {**bundle.manifest, "files": dict(bundle.manifest["files"])})
    del served.manifest["files"][ITEM_VECTORS_FILE]
    with pytest.raises(BundleError, match=r"has no item_vectors.npy; make the bundle again with `nann index`"):
        refresh_bundle(served, tmp_path / "journal", tmp_path / "next")


def test_kill_9_leaves_the_bundle_as_it_was(bundle, tmp_path):
    own = make_bundle(tmp_path / "bundle", item_rows=True)
    write(tmp_path / "repository" / ".catalog" / "journal", own, ([Upsert(5, {}, **vectors_like(own, 50))], [1003]))
    command = "import time; from nann.training.search import refresh\n"
    command += "refresh._finish = lambda *_: (print('there', flush=True), time.sleep(60))\n"
    command += "from nann.bundle import Bundle; from pathlib import Path; here = Path('bundle')\n"
    command += "refresh.refresh_bundle(Bundle.open(here), Path('repository/.catalog/journal'), here)"
    with subprocess.Popen([sys.executable, "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        os.kill(process.pid, signal.SIGKILL)
    assert Bundle.open(tmp_path / "bundle").identity == own.identity
    assert refresh_bundle(own, tmp_path / "repository" / ".catalog" / "journal", own.path).added == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bundle", "repository"], "what was left is cleared"


def test_vectors_have_the_bundles_width(bundle):
    assert bundle.item_vectors.shape == (ITEMS, DIM)
    assert set(attributes()) == set(bundle.attributes.names)


@pytest.mark.parametrize("more", [0, 1])
def test_a_corpus_that_outgrew_the_server_is_walked_and_no_longer_scored_as_a_whole(bundle, tmp_path, more):
    copied = Bundle.open(shutil.copytree(bundle.path, tmp_path / "bundle"))
    every = copied.search_params.scoring_all()
    before = copied.change(search=search_to_json(every), search_by_entry=copied.manifest["search_by_entry"])
    assert SERVED_BOUNDS.max_ef == ITEMS
    added = [Upsert(NEW[number], {}, **vectors_like(bundle, 100)) for number in range(1 + more)]
    write(tmp_path / "journal", bundle, (added, DELETED[:1]))
    refresh_bundle(before, tmp_path / "journal", tmp_path / "next", threads=1)
    after = Bundle.open(tmp_path / "next")
    assert after.item_count == ITEMS + more
    assert after.search_params.entry == ("seeds" if more else "all")
    assert set(after.search_by_entry) == ({"seeds"} if more else {"all", "seeds"})
    for params in after.search_by_entry.values():  # or a server would refuse the bundle
        SERVED_BOUNDS.check_defaults(params, after.item_count)
