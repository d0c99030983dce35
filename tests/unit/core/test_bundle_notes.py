"""A bundle's identity follows from its manifest; notes about it do not change it."""

import json
import shutil

import pytest
from support import golden, tiny_bundle

from nann import bundle as bundle_module
from nann.bundle import MANIFEST_FILE, Bundle
from nann.bundle_notes import NOTES_FILE
from nann.errors import BundleError
from nann.manifest import sha256_of

OTHER_SEARCH = {"top_k": 4, "ef": [4, 6], "rounds": [1, 9]}


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle.make_bundle(tmp_path / "bundle")


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that are read to be hashed."""
    read = []
    monkeypatch.setattr(bundle_module, "sha256_of", lambda path: (read.append(path.name), sha256_of(path))[1])
    return read


def test_a_note_is_added_beside_the_others_and_no_file_is_read(bundle, hashed):
    assert bundle.notes == {}
    manifest = (bundle.path / MANIFEST_FILE).read_bytes()
    bundle.note(metrics={"test": {"coverage": 0.5}}, created="2026-01-02T03:04:05+00:00")
    bundle.note(metrics={"test": {"coverage": 0.9}})
    assert Bundle.open(bundle.path, ()).notes == {
        "metrics": {"test": {"coverage": 0.9}},
        "created": "2026-01-02T03:04:05+00:00",
    }
    assert (bundle.path / MANIFEST_FILE).read_bytes() == manifest
    assert hashed == []


def test_a_note_changes_no_identity_and_what_decides_answers_does(bundle):
    identity = bundle.identity
    bundle.note(tuning={"coverage": 0.9})
    assert Bundle.open(bundle.path).identity == identity
    other = bundle.change(search=OTHER_SEARCH)
    assert Bundle.open(bundle.path).identity == other.identity != identity
    assert other.bundle_id == bundle.bundle_id, "the files are the same"
    assert bundle.change(search=tiny_bundle.SEARCH).identity == identity
    assert bundle.change(shape_grid={"batch_sizes": [1], "widths": [8]}).identity != identity
    assert bundle.change(export={"user_state_width": 9}).identity != identity


def test_a_change_reads_only_the_files_that_were_written(bundle, hashed):
    bundle.change(search=OTHER_SEARCH)
    assert hashed == []
    (bundle.path / "scorer.onnx").write_bytes(b"other")
    (bundle.path / "item_names.txt").write_text("names")
    changed = bundle.change(written=["scorer.onnx", "item_names.txt"], removed=["levels.npy"])
    assert hashed == ["scorer.onnx", "item_names.txt"]
    assert set(changed.manifest["files"]) == {*bundle.manifest["files"], "item_names.txt"} - {"levels.npy"}
    assert changed.bundle_id != bundle.bundle_id
    assert Bundle.open(bundle.path).manifest == changed.manifest


def test_notes_in_the_manifest_of_an_older_bundle_are_read_and_move_with_the_next_change(tmp_path):
    path = shutil.copytree(golden.BUNDLE, tmp_path / "bundle")
    old = Bundle.open(path)
    assert old.manifest["metrics"]["test"]["users"] == 20
    assert set(old.notes) == {"created", "tools", "provenance", "metrics", "tuning", "half_precision"}
    old.note(metrics={"test": {"coverage": 0.5}})
    noted = Bundle.open(path)
    assert noted.manifest == old.manifest
    assert noted.identity == old.identity
    assert noted.notes["metrics"] == {"test": {"coverage": 0.5}}, "the newer note counts"
    changed = noted.change(search=old.manifest["search_by_entry"]["layers"])
    assert changed.identity != old.identity
    assert not set(changed.manifest) & set(old.notes)
    assert changed.notes == noted.notes
    back = changed.change(search=old.manifest["search"])
    assert back.identity == old.identity


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"notes\.json can't be read as JSON: Expecting .*; remove it, no search needs it"),
        ("[]", r"notes\.json is \[\]; expected a JSON object; remove it, no search needs it"),
        ("5", r"notes\.json is 5; expected a JSON object; remove it"),
        ("null", r"notes\.json is None; expected a JSON object; remove it"),
        ('"text"', r"notes\.json is 'text'; expected a JSON object; remove it"),
        ("[" * 100_000, r"notes\.json can't be read as JSON: .*recursion.*; remove it"),
        ('{"metrics": []}', r"notes\.json: metrics is \[\]; expected an object; remove it"),
        ('{"created": "today"}', r"notes\.json: created is 'today'; expected a date and time in ISO 8601; remove it"),
        ('{"created": 5}', r"notes\.json: created is 5; expected a date"),
    ],
)
def test_notes_of_something_else_are_named_and_searches_go_on(bundle, content, message):
    (bundle.path / NOTES_FILE).write_text(content)
    with pytest.raises(BundleError, match=message):
        _ = bundle.notes
    with pytest.raises(BundleError, match=message):
        bundle.note(metrics={})
    assert Bundle.open(bundle.path).graph.item_count == tiny_bundle.ITEMS


@pytest.mark.parametrize("content", [b"\xff", None])
def test_notes_that_can_not_be_read_are_named(bundle, content):
    path = bundle.path / NOTES_FILE
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(BundleError, match=r"notes\.json can't be read as JSON: .*; remove it, no search needs it"):
        _ = bundle.notes


def test_notes_that_lead_outside(bundle, tmp_path):
    (tmp_path / "elsewhere.json").write_text(json.dumps({"metrics": {}}))
    (bundle.path / NOTES_FILE).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match=r"notes\.json is a link to .*, outside its folder"):
        _ = bundle.notes
