"""One process of a server makes arrays and the others map them; each writes to its own; a full disk stops nobody."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest
from support.searching import make_graph

from nann.found_once import FOLDER_VARIABLE
from nann.light_codes import LightCodes
from nann.search_input import SearchIndex
from nann.shared_arrays import shared_arrays

ROWS = 1_000_000
MADE = {"rows": np.arange(ROWS, dtype=np.int64), "scales": np.float32([0.5, 0.25])}
ASKED = """
import sys
from nann.shared_arrays import shared_arrays
arrays = shared_arrays("kind", "a0", lambda: sys.exit("made again"))
arrays["rows"][:3] = -1
smaps, own = open("/proc/self/smaps").read().split("\\n"), None
for line in smaps:
    if "kind-a0.rows.npy" in line:
        own = 0
    elif own is not None and line.startswith("Private_Dirty:"):
        own = int(line.split()[1])
        break
print(arrays["rows"][:4].tolist(), arrays["scales"].tolist(), own)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "found").mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "found"))
    return tmp_path / "found"


def unexpected():
    raise AssertionError("these were made before")


def assert_made(arrays):
    assert list(arrays) == list(MADE)
    for name, array in MADE.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_another_process_maps_what_one_has_made_and_pays_for_what_it_writes_alone(folder):
    mine = shared_arrays("kind", "a0", lambda: MADE)
    assert_made(mine)
    asked = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=False)
    rows, own_kb = asked.stdout.rpartition(" ")[::2]
    assert rows == "[-1, -1, -1, 3] [0.5, 0.25]", asked.stderr
    assert int(own_kb) == resource.getpagesize() // 1024, "one page of its own, of 8 MB"
    assert_made(mine)
    assert_made(shared_arrays("kind", "a0", unexpected))


def test_a_server_keeps_the_latest_of_each_kind(folder):
    old = shared_arrays("kind", "a0", lambda: MADE)
    other = shared_arrays("other", "a0", lambda: MADE)
    new = shared_arrays("kind", "a01", lambda: {"rows": np.zeros(3)})
    assert {path.name for path in folder.iterdir()} == {
        "kind-a01", "kind-a01.rows.npy", "other-a0", "other-a0.rows.npy", "other-a0.scales.npy",
    }  # fmt: skip
    assert_made(old)
    assert_made(other)
    assert new["rows"].tolist() == [0, 0, 0]
    assert_made(shared_arrays("kind", "a0", lambda: MADE))  # a rollback


def test_what_was_removed_meanwhile_is_made_anew(folder):
    shared_arrays("kind", "a0", lambda: MADE)
    (folder / "kind-a0.rows.npy").unlink()
    assert_made(shared_arrays("kind", "a0", lambda: MADE))


def test_without_room_or_folder_the_arrays_are_the_process_own(folder, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert_made(shared_arrays("kind", "a0", lambda: MADE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(folder.glob("*.npy"))
    assert_made(shared_arrays("kind", "a0", lambda: MADE))
    assert list(folder.glob("*.npy")), "found nothing, so it is tried again"
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "gone"))
    assert_made(shared_arrays("kind", "a0", lambda: MADE))
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert_made(shared_arrays("kind", "a0", lambda: MADE))


def test_the_codes_of_light_vectors_are_shared(folder, monkeypatch):
    graph = make_graph([[[1], [2], [0]]], [0, 0, 0])
    vectors = np.random.default_rng(5).normal(size=(3, 40)).astype(np.float32)
    expected = LightCodes.of(vectors)
    first = SearchIndex(graph, vectors, light_key="ab")
    np.testing.assert_array_equal(first.light_codes.codes, expected.codes)
    first.codes_with_room.write(3, vectors[:1])  # an item that was added
    monkeypatch.setattr(LightCodes, "of", lambda *_: unexpected())
    second = SearchIndex(graph, vectors, light_key="ab")
    np.testing.assert_array_equal(second.light_codes.codes, expected.codes)
    np.testing.assert_array_equal(second.light_codes.scales, expected.scales)
    assert second.light_codes.width == 40
    assert not second.codes_with_room.codes[3:].any()
    with pytest.raises(AssertionError, match="made before"):
        _ = SearchIndex(graph, vectors).light_codes
