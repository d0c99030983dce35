import json
import os

import numpy as np
import pytest
from support.searching import make_graph

from nann.bundle import (
    BEHAVIOR_IDS_FILE,
    ITEM_IDS_FILE,
    ITEM_NAMES_FILE,
    ITEM_VECTORS_FILE,
    MANIFEST_FILE,
    Bundle,
    search_file_names,
    write_manifest,
)
from nann.errors import BundleError
from nann.search_params import SearchParams

IDS = np.array([3, 5, 8, 13, 21], np.int64)
VECTORS = np.arange(10, dtype=np.float32).reshape(5, 2)
GRAPH = make_graph([[[1], [0, 2], [1, 3], [2, 4], [3]], [[2], [], [0], [], []]], [1, 0, 1, 0, 0])
NAMES = ["milk", "bread", "", "salt", "tea"]


def manifest_body(**changes):
    return {
        "item_count": 5,
        "sequence_length": 4,
        "profile_fields": [{"name": "age", "values": ["9", "10"]}],
        "graph": {"layer_count": 2, "entry_layer": 1, "hnsw_entry_point": 0},
        "search": {"top_k": 2, "ef": [2, 4], "rounds": [1, 3]},
        **changes,
    }


@pytest.fixture
def write(tmp_path):
    """Writes a bundle; arrays and manifest entries can be replaced."""

    def make(layers=GRAPH, ids=IDS, **changes):
        np.save(tmp_path / ITEM_IDS_FILE, ids)
        np.save(tmp_path / ITEM_VECTORS_FILE, VECTORS)
        (tmp_path / ITEM_NAMES_FILE).write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
        files = [ITEM_IDS_FILE, ITEM_VECTORS_FILE, ITEM_NAMES_FILE, *layers.save(tmp_path)]
        return write_manifest(tmp_path, manifest_body(**changes), files)

    return make


def edit_manifest(path, edit):
    body = json.loads((path / MANIFEST_FILE).read_text())
    edit(body)
    (path / MANIFEST_FILE).write_text(json.dumps(body))


def test_round_trip(write):
    written = write()
    bundle = Bundle.open(str(written.path))
    assert bundle.manifest == written.manifest
    assert (bundle.item_count, bundle.sequence_length, bundle.bundle_id) == (5, 4, written.bundle_id)
    assert bundle.search_params == SearchParams(2, (2, 4), (1, 3))
    assert bundle.item_names == NAMES
    np.testing.assert_array_equal(bundle.item_ids, IDS)
    np.testing.assert_array_equal(bundle.item_vectors, VECTORS)
    np.testing.assert_array_equal(bundle.graph.levels, GRAPH.levels)
    for ours, theirs in zip(bundle.graph.layers, GRAPH.layers, strict=True):
        np.testing.assert_array_equal(ours.indptr, theirs.indptr)
        np.testing.assert_array_equal(ours.neighbors, theirs.neighbors)
    assert (bundle.features.sequence_length, bundle.features.profile_sizes) == (4, (3,))
    assert set(search_file_names(bundle.manifest)) < set(bundle.manifest["files"])


def test_arrays_are_memory_mapped_and_read_only(write):
    bundle = Bundle.open(write().path)
    for array in (bundle.item_ids, bundle.item_vectors):
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable


def test_no_names_are_none(write):
    bundle = write()
    (bundle.path / ITEM_NAMES_FILE).unlink()
    assert bundle.item_names is None


@pytest.mark.parametrize("name", [ITEM_IDS_FILE, ITEM_VECTORS_FILE, "levels.npy", "layer1.neighbors.npy"])
def test_a_changed_byte_is_found(write, name):
    path = write().path
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} has sha256 .*; the manifest says .*; make the bundle again"):
        Bundle.open(path)


def test_a_truncated_file_is_found(write):
    path = write().path
    os.truncate(path / ITEM_VECTORS_FILE, 100)
    with pytest.raises(BundleError, match=r"item_vectors\.npy has 100 bytes; the manifest says 168"):
        Bundle.open(path)


def test_a_missing_file_is_found(write):
    path = write().path
    (path / "layer0.indptr.npy").unlink()
    with pytest.raises(BundleError, match=r"layer0\.indptr\.npy is missing; make the bundle again"):
        Bundle.open(path)


def test_only_the_files_asked_for_are_verified(write):
    path = write().path
    (path / ITEM_VECTORS_FILE).write_bytes(b"")
    (path / ITEM_NAMES_FILE).unlink()
    assert Bundle.open(path, [ITEM_IDS_FILE]).item_count == 5
    assert Bundle.open(path, []).item_count == 5
    with pytest.raises(BundleError, match=r"item_vectors\.npy has 0 bytes"):
        Bundle.open(path, [ITEM_IDS_FILE, ITEM_VECTORS_FILE])


def test_a_file_that_is_not_listed_is_not_used(write):
    path = write().path
    (path / "scorer.onnx").write_bytes(b"not listed")
    with pytest.raises(BundleError, match=r"does not list scorer\.onnx; run `nann export`"):
        Bundle.open(path, ["scorer.onnx"])


@pytest.mark.parametrize("make", ["folder", "nothing"])
def test_a_folder_without_manifest_is_no_bundle(tmp_path, make):
    if make == "folder":
        (tmp_path / "bundle").mkdir()
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json; make one with `nann index`"):
        Bundle.open(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"manifest\.json is not JSON: .*; make the bundle again"),
        (b"\xff\xfe", r"manifest\.json is not JSON"),
        (b"[]", r"manifest\.json holds no JSON object"),
        (b"{}", r"has format version None; this release reads version 1"),
        (b'{"format_version": 2}', r"has format version 2; this release reads version 1"),
        (b'{"format_version": 1, "graph": {}}', r"lacks bundle_id, item_count, sequence_length, .*, search, files"),
    ],
)
def test_a_broken_manifest_is_refused(tmp_path, content, message):
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    "key", ["bundle_id", "item_count", "sequence_length", "profile_fields", "graph", "search", "files"]
)
def test_a_missing_key_is_named(write, key):
    path = write().path
    edit_manifest(path, lambda body: body.pop(key))
    with pytest.raises(BundleError, match=rf"manifest\.json lacks {key}; make the bundle again"):
        Bundle.open(path)


@pytest.mark.parametrize("ids", [[3, 8, 5, 13, 21], [3, 5, 5, 8, 13], [3, 5, 8, 13]])
def test_item_ids_must_ascend_and_be_as_many_as_announced(write, ids):
    bundle = write(ids=np.array(ids, np.int64))
    with pytest.raises(BundleError, match=r"item_ids\.npy is not 5 ids in strictly ascending order"):
        _ = bundle.item_ids


def test_the_user_encoder_may_know_other_items(write):
    bundle = write()
    np.save(bundle.path / BEHAVIOR_IDS_FILE, np.array([5, 6, 21], np.int64))
    features = bundle.change(written=[BEHAVIOR_IDS_FILE]).features
    assert features.behaviors(np.array([[5, 3, 21]]))[0].tolist() == [[-1, -1, 0, 2]]
    assert len(bundle.features.known_ids) == 5


@pytest.mark.parametrize("ids", [[], [3, 3], [5, 3]])
def test_ids_of_behaviours_must_ascend(write, ids):
    bundle = write()
    np.save(bundle.path / BEHAVIOR_IDS_FILE, np.array(ids, np.int64))
    changed = bundle.change(written=[BEHAVIOR_IDS_FILE])
    with pytest.raises(BundleError, match=r"behavior_ids\.npy is not one id or more in strictly ascending order"):
        _ = changed.features


def test_item_ids_of_another_dtype_are_refused(write):
    bundle = write(ids=IDS.astype(np.int32))
    with pytest.raises(BundleError, match=r"item_ids\.npy holds int32\[1 dimensions\]; expected int64\[1\]"):
        _ = bundle.item_ids


def test_the_graph_must_have_the_items_of_the_manifest(write):
    layers = {"layer_count": 1, "entry_layer": 0, "hnsw_entry_point": 0}
    bundle = write(make_graph([[[1], [0], []]], [0, 0, 0]), graph=layers)
    with pytest.raises(BundleError, match="the graph has 3 items and the manifest says 5"):
        _ = bundle.graph


def test_the_graph_is_validated(write):
    bundle = write()
    broken = GRAPH.layers[0].neighbors.copy()
    broken[0] = 5
    np.save(bundle.path / "layer0.neighbors.npy", broken)
    with pytest.raises(BundleError, match=r"layer 0: a neighbour is outside 0\.\.4"):
        _ = Bundle.open(bundle.path, []).graph


def test_the_id_follows_the_content_and_nothing_else(write):
    first = write()
    assert write(ids=IDS + 1).bundle_id != first.bundle_id
    assert write().bundle_id == first.bundle_id
    fewer = [name for name in first.manifest["files"] if name != ITEM_NAMES_FILE]
    assert write_manifest(first.path, manifest_body(), fewer).bundle_id != first.bundle_id


def test_writing_leaves_no_temporary_file(write):
    path = write().path
    assert not [file.name for file in path.iterdir() if file.name.startswith(".")]
