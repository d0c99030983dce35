"""Filters with a name: written whole, followed by readers at once, and mapped to the bundle that is served."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from nann import item_sets
from nann.errors import ConfigError, FilterError
from nann.features import FeatureTransform
from nann.filters import NamedFilters, ServedFilters, where
from nann.filters.named import MAX_NAME, checked_named
from nann.item_ids import TEXT
from nann.training.data.item_columns import catalogue_of

IDS = np.arange(10, 110, dtype=np.int64)
FEATURES = FeatureTransform(IDS, 4)
CATALOGUE = catalogue_of({"price": np.arange(100) / 2}, 100)


@pytest.fixture
def operator(tmp_path):
    return NamedFilters.of_repository(tmp_path)


@pytest.fixture
def served(operator):
    return ServedFilters(operator, {"cheap": "price < 2", "dear": "price > 45"}, CATALOGUE, FEATURES)


def members(served, name):
    return item_sets.members(served.allowed(name)).tolist()


def test_a_filter_is_set_replaced_and_removed(operator, served):
    assert members(served, "cheap") == [0, 1, 2, 3]
    operator.set("cheap", "price < 1")
    operator.set("de", np.array([12, 10, 7, 109]))  # 7 is no item
    assert operator.names() == ["cheap", "de"]
    assert served.names == ["cheap", "de", "dear"]
    assert members(served, "cheap") == [0, 1]
    assert members(served, "de") == [0, 2, 99]
    assert served.allowed("de") is served.allowed("de")
    assert not served.allowed("de").flags.writeable
    operator.set("de", np.array([11]))
    assert members(served, "de") == [1]
    operator.set("de", "price between 1 and 1.5")
    assert members(served, "de") == [2, 3]
    operator.remove("cheap")
    assert members(served, "cheap") == [0, 1, 2, 3]
    operator.remove("de")
    with pytest.raises(FilterError, match="filter_name is 'de'; expected one of: cheap, dear"):
        served.allowed("de")


def test_what_was_set_is_mapped_to_another_bundle(operator, tmp_path):
    operator.set("de", np.array([10, 12, 500]))
    operator.set("cheap", "price < 2")
    other = ServedFilters(
        NamedFilters.of_repository(tmp_path),
        {},
        catalogue_of({"price": [9.0, 1.0, 1.5]}, 3),
        FeatureTransform(IDS[2:5], 4),
    )
    assert members(other, "de") == [0]
    assert members(other, "cheap") == [1, 2]


def test_lists_of_text_ids(operator):
    texts = ServedFilters(operator, {}, None, FeatureTransform(TEXT.stored(["a", "b", "sku-1"]), 4))
    operator.set("de", np.array([b"sku-1", b"gone for good", b"a", b"a"]))
    assert operator.read("de").tolist() == [b"a", b"gone for good", b"sku-1"]
    assert members(texts, "de") == [0, 2]
    with pytest.raises(FilterError, match=r"'de' does not fit this bundle: item ids came as \|S13; expected whole"):
        ServedFilters(operator, {}, CATALOGUE, FEATURES).allowed("de")
    operator.set("de", np.array([10]))
    with pytest.raises(FilterError, match=r"item ids came as int64; expected text \(BYTES\), as in the bundle"):
        texts.allowed("de")


def test_a_filter_that_does_not_fit_the_bundle_is_refused_and_not_forgotten(operator):
    operator.set("red", 'color = "red"')
    fits = ServedFilters(operator, {}, CATALOGUE, FEATURES)
    with pytest.raises(FilterError, match=r"filter 'red' does not fit this bundle: position 1: got 'color'; expected"):
        fits.allowed("red")
    operator.set("cheap", "price < 2")
    assert [line.split(":")[0] for line in fits.misfits()] == ["filter 'red' does not fit this bundle"]
    without = ServedFilters(operator, {}, None, FEATURES)
    with pytest.raises(
        FilterError, match=r"filter 'red' is 'color = \"red\"'; expected a bundle whose items have attr"
    ):
        without.allowed("red")


def test_no_filters_at_all():
    with pytest.raises(FilterError, match=r"filter_name is '\.\./x'; expected one of: none"):
        ServedFilters(None, {}, None, FEATURES).allowed("../x")


@pytest.mark.parametrize("name", ["../x", "", "x" * 101, ".x", "a/b", "a\nb"])
def test_names_that_may_not_be(operator, served, name):
    with pytest.raises(ConfigError, match=f"expected at most {MAX_NAME} letters"):
        operator.set(name, "a")
    with pytest.raises(ConfigError, match="a filter's name is"):
        checked_named({name: "price > 1"}, CATALOGUE)
    with pytest.raises(FilterError, match=f"filter_name is {re.escape(repr(name))}"):
        served.allowed(name)


@pytest.mark.parametrize(
    ("definition", "error", "message"),
    [
        ("price <", FilterError, "position 8: got the end"),
        (np.array([1.5]), ConfigError, r"filter 'a' is float64\[1\]; expected the ids of items, int64\[X\]"),
        (np.array([[1]]), ConfigError, r"filter 'a' is int64\[1, 1\]; expected the ids of items"),
    ],
)
def test_what_may_not_be_set(operator, definition, error, message):
    with pytest.raises(error, match=message):
        operator.set("a", definition)
    assert operator.names() == []


def test_a_filter_of_a_bundle_must_fit_it():
    given = {"a": "price > 1", "b": where("price").between(1, 3)}
    assert checked_named(given, CATALOGUE) == {"a": "price > 1", "b": "price between 1 and 3"}
    with pytest.raises(FilterError, match="filter 'a': position 1: got 'color'"):
        checked_named({"a": "color"}, CATALOGUE)
    with pytest.raises(
        FilterError, match=r"filter 'a' is where\('price'\); expected text, or a comparison that is built"
    ):
        checked_named({"a": where("price")}, CATALOGUE)
    with pytest.raises(ConfigError, match="a filter's name is 3; expected at most"):
        checked_named({3: "price > 1"}, CATALOGUE)


def test_removing_what_is_not_there(operator):
    operator.set("a", "price > 1")
    with pytest.raises(ConfigError, match="there is no filter 'b' to remove; there are: a"):
        operator.remove("b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x93NUMPY\x01\x00", "can't be read: .*; set the filter again with `nann filters set`"),
        (b"price \xff", "can't be read"),
    ],
)
def test_a_damaged_file(operator, tmp_path, content, message):
    operator.set("a", "price > 1")
    (tmp_path / ".filters" / "a.filter").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        operator.read("a")


def test_an_array_of_another_form(operator, tmp_path):
    operator.set("a", "price > 1")
    with (tmp_path / ".filters" / "a.filter").open("wb") as stream:
        np.save(stream, np.zeros((2, 2)))
    with pytest.raises(ConfigError, match=r"holds float64\[2, 2\]; expected int64\[X\] or S\[X\]: set it again"):
        operator.read("a")


def test_readers_see_one_whole_definition_or_the_other_while_it_is_replaced(operator, tmp_path):
    definitions = [np.arange(10, 60), np.arange(60, 110), "price < 25", "price >= 25"]  # one half or the other
    halves = [item_sets.of_items(np.arange(half, half + 50, dtype=np.int32), 100).tolist() for half in (0, 50)]
    operator.set("half", definitions[0])
    done, wrong, seen = threading.Event(), [], set()

    def read():
        served = ServedFilters(NamedFilters.of_repository(tmp_path), {}, CATALOGUE, FEATURES)
        try:
            while not done.is_set():
                seen.add(halves.index(served.allowed("half").tolist()))
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    here = ServedFilters(operator, {}, CATALOGUE, FEATURES)
    for number in range(200):
        operator.set("half", definitions[number % 4])
        assert here.allowed("half").tolist() == halves[number % 2]  # the next look sees it
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert seen == {0, 1}


def test_a_crash_between_writing_and_replacing_leaves_the_old_filter(operator, served, tmp_path):
    operator.set("de", np.array([10]))
    code = """
import os, signal, sys
import numpy as np
from pathlib import Path
from nann.filters import NamedFilters
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
NamedFilters.of_repository(Path(sys.argv[1])).set("de", np.array([11]))
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path], timeout=120).returncode == -9
    folder: Path = tmp_path / ".filters"
    assert len(list(folder.iterdir())) == 2  # and what the crash left
    assert members(served, "de") == [0]
    assert operator.names() == ["de"]
    operator.set("de", np.array([12]))
    assert members(served, "de") == [2]
    assert [path.name for path in folder.iterdir()] == ["de.filter"]
