"""Manifests that are refused: names that leave the bundle, impossible sizes, parameters that do not fit the graph."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann.bundle import Bundle, write_manifest
from nann.errors import BundleError
from nann.manifest import MANIFEST_FILE, read_manifest

BODY = {
    "item_count": 5,
    "sequence_length": 4,
    "profile_fields": [],
    "graph": {"layer_count": 2, "entry_layer": 1, "hnsw_entry_point": 0},
    "search": {"top_k": 2, "ef": [2, 4], "rounds": [1, 3]},
}
ENTRY = {"sha256": "0" * 64, "bytes": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundle")


def write(folder, **changes):
    body = {**BODY, "format_version": 1, "bundle_id": "x", "files": {}, **changes}
    (folder / MANIFEST_FILE).write_text(json.dumps(body))


def refused(folder, **changes) -> str:
    write(folder, **changes)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "a/b",
        "..",
        ".",
        "",
        ".hidden",
        "a\\b",
        "C:x",
        "a\0b",
        "a\n",
        "a" * 256,
    ],
)
def test_names_that_are_no_plain_names(folder, name):
    words = refused(folder, files={name: ENTRY})
    assert "expected a plain name of letters, digits, '_', '-' and '.': a bundle's files are in its own folder" in words


@settings(max_examples=200)
@given(st.text(max_size=12) | st.from_regex(r"(\.\./|/|\./|[a-z.]){1,6}", fullmatch=True))
def test_no_name_that_is_accepted_leaves_the_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    write(folder, files={name: ENTRY})
    try:
        accepted = read_manifest(folder)["files"]
    except BundleError:
        return
    for inside in accepted:
        assert (folder / inside).resolve().parent == folder.resolve()


@pytest.mark.parametrize("where", ["outside", "nowhere", "itself"])
def test_links_that_lead_outside(tmp_path, where):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    np.save(bundle / "item_ids.npy", np.arange(5))
    write_manifest(bundle, BODY, ["item_ids.npy"])
    Bundle.open(bundle)
    (bundle / "item_ids.npy").rename(tmp_path / "outside")
    target = bundle / "item_ids.npy" if where == "itself" else tmp_path / where
    (bundle / "item_ids.npy").symlink_to(target)
    message = (
        r"is a link to .*outside, outside its folder; put the file itself there" if where == "outside" else "missing"
    )
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


def test_a_link_within_the_folder_and_a_linked_folder_are_fine(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    np.save(bundle / "real.npy", np.arange(5))
    (bundle / "item_ids.npy").symlink_to("real.npy")
    write_manifest(bundle, BODY, ["item_ids.npy"])
    (tmp_path / "current").symlink_to(bundle)
    assert Bundle.open(tmp_path / "current").item_count == 5


def test_a_manifest_that_leads_outside(tmp_path):
    write(tmp_path)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / MANIFEST_FILE).symlink_to(tmp_path / MANIFEST_FILE)
    with pytest.raises(BundleError, match=r"manifest\.json is a link to .*, outside its folder"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_count": 0}, "item_count is 0; expected a whole number from 1 to 2147483647"),
        ({"item_id_kind": "uuid"}, "item_id_kind is 'uuid'; expected numbers or text"),
        ({"item_count": True}, "item_count is True; expected a whole number"),
        ({"sequence_length": 10**12}, "sequence_length is 1000000000000; expected a whole number from 1 to 65536"),
        ({"graph": {**BODY["graph"], "layer_count": 10**12}}, "graph is {'layer_count': 1000000000000"),
        ({"graph": {}}, "graph is {}; expected an object with layer_count: a whole number from 1 to 256"),
        ({"profile_fields": [3]}, "profile_fields is [3]; expected a list of objects with a list of values"),
        (
            {"profile_fields": [{"values": [], "edges": ["x"]}]},
            "expected a list of objects with a list of values, and for numbers",
        ),
        ({"files": {"a": {"bytes": 3}}}, "files: a lacks sha256"),
        ({"files": {"a": {**ENTRY, "sha256": "zz"}}}, "files: a: sha256 is 'zz'; expected 64 hex digits"),
        ({"files": {"a": 3}}, "files: a is 3; expected an object"),
        ({"search": {"top_k": 9, "ef": [2, 4], "rounds": [1, 3]}}, "search: ef of the ground layer is 4 and top_k 9"),
        ({"search": {"top_k": 2, "ef": [4], "rounds": [1]}}, "search: ef is [4]; expected 2 values, one per layer"),
        ({"search_by_entry": {"seeds": {}}}, "search_by_entry: 'seeds' lacks top_k, ef, rounds"),
        (
            {"search_by_entry": {"seeds": {**BODY["search"], "seeds": {"count": 1}}}},
            "seeds is {'count': 1}; expected count",
        ),
        (
            {"shape_grid": {"batch_sizes": [1], "widths": [64]}},
            "shape_grid: batch_sizes of the padding grid end with 1",
        ),
        ({"export": {}}, "export is {}; expected an object with user_state_width"),
        (
            {"attributes": {"a": {"type": "date", "column": 0}}},
            "a type out of category, categories, integer, number, flag",
        ),
        (
            {"attributes": {"a": {"type": "flag", "column": "../0"}}},
            "expected an object of objects, each with a column",
        ),
        ({"attributes": ["a"]}, "attributes is ['a']; expected an object"),
        ({"filters": {"../a": "x"}}, "expected an object of texts, under names of letters, digits"),
        ({"filters": {"a": 3}}, "filters is {'a': 3}; expected an object of texts"),
    ],
    ids=str,
)
def test_values_that_can_not_be(folder, changes, message):
    assert message in refused(folder, **changes)


def test_a_long_value_is_shown_in_part(folder):
    assert len(refused(folder, bundle_id=["x" * 10_000])) < 500
