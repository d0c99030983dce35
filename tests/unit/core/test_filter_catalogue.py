"""Attributes as columns, and filters compiled over them, against a plain evaluation item by item."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from support.filter_oracle import ATTRIBUTES, FILTERS, ITEMS, item_set, written

from nann import item_sets
from nann.errors import BundleError, DataError, FilterError
from nann.filters import Catalogue, parse, where
from nann.filters.catalogue import attribute_files
from nann.filters.vocabulary import Vocabulary
from nann.training.data.item_columns import catalogue_of

N = len(ITEMS)
MADE = catalogue_of(ATTRIBUTES, N)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    entries, files = MADE.save(folder)
    assert sorted(files) == sorted(path.name for path in folder.iterdir())
    assert files == attribute_files(entries)
    return folder, entries


@pytest.fixture(scope="module")
def opened(saved):
    return Catalogue.load(*saved, N)


def test_types(saved):
    _, entries = saved
    assert {name: entry["type"] for name, entry in entries.items()} == {
        "genre": "category", "tags": "categories", "year": "integer", "price": "number", "available": "flag",
        "group": "category"}  # fmt: skip


@settings(max_examples=400)
@given(filter_=FILTERS)
def test_every_filter_matches_what_it_says(opened, filter_):
    expected = item_set(filter_, ITEMS)
    for catalogue in (opened, MADE):
        np.testing.assert_array_equal(catalogue.compile(written(filter_)), expected)


def test_a_missing_value_matches_no_comparison(opened):
    def matching(text):
        return item_sets.members(opened.compile(text)).tolist()

    assert 4 not in matching('genre != "jazz"')
    assert 4 not in matching('genre = "jazz"')
    assert 4 in matching('not genre = "jazz"')
    assert 2 not in matching('tags not in ("new", "old")')
    assert 3 not in matching("available") + matching("available = false") + matching("available != true")
    assert 3 in matching("not available")


def test_a_filter_is_compiled_once_in_all_its_words(opened):
    first = opened.compile("year > 1970 and available")
    assert opened.compile("available = TRUE and year > 1970.0") is first
    assert opened.compile(where("available").is_true() & (where("year") > 1970)) is first
    assert opened.compile(parse("year > 1970 and available")) is first
    assert not first.flags.writeable


def test_the_cache_is_bounded_in_bytes_and_keeps_what_is_used():
    small = Catalogue(MADE.columns, N, cache_bytes=3 * 8 * item_sets.bitmap_words(N))
    first, second = small.compile("year > 1"), small.compile("year > 2")
    small.compile("year > 3")
    assert small.compile("year > 1") is first
    small.compile("year > 4")
    assert small.compile("year > 1") is first
    assert small.compile("year > 2") is not second
    np.testing.assert_array_equal(small.compile("year > 2"), second)
    nothing = Catalogue(MADE.columns, N, cache_bytes=0)
    assert nothing.compile("year > 2") is not nothing.compile("year > 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('year > 3 and color = "red"', "position 14: got 'color'; expected an attribute of the items: genre, tags"),
        ('price = "x"', 'position 1: attribute price is a number; got = "x"; expected a comparison with numbers'),
        ("price", "position 1: attribute price is a number; got its name alone, which is for flags; expected a compar"),
        ("price = true", "position 1: attribute price is a number; got = true; expected a comparison with numbers"),
        ("price in (1, true)", "attribute price is a number; got in true"),
        ("genre > 3", "attribute genre is a category; got > 3; expected a \"text\" or a whole number with =, !="),
        ("genre = 3.5", "attribute genre is a category; got = 3.5"),
        ("tags", "attribute tags is a category; got its name alone, which is for flags; expected a \"text\""),
        ("available = 1", "attribute available is a flag; got = 1; expected its name alone, or = or !="),
        ("available < 1", "attribute available is a flag; got < 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_attributes(opened, text, message):
    with pytest.raises(FilterError, match=re.escape(message)):
        opened.compile(text)


def test_without_a_text_there_is_no_position(opened):
    with pytest.raises(FilterError, match=r"^got 'color'; expected an attribute"):
        opened.compile(where("color") == "red")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], "attribute 'a' has 2 values; expected 3, one an item"),
        ([1, "x", 2.5], "attribute 'a' can't be read: .*; expected values of one type"),
        ([None] * 3, "attribute 'a' has type Null; expected true and false, numbers, texts, or lists"),
        ([[1.5], [], []], r"attribute 'a' has type List\(Float64\); expected"),
        (np.array([1, 2, 2**64 - 1], np.uint64), "attribute 'a' has type UInt64; expected"),
        (np.zeros((3, 2), "datetime64[s]"), "attribute 'a'"),
    ],
)
def test_values_that_are_no_attribute(values, message):
    with pytest.raises(DataError, match=message):
        catalogue_of({"a": values}, 3)


def test_bounds_of_attributes():
    with pytest.raises(DataError, match="got 1,001 attributes; expected at most 1,000"):
        catalogue_of({f"a{n}": [1] for n in range(1001)}, 1)
    for name in ("", "x" * 201, 3):
        with pytest.raises(DataError, match="expected text, 1 to 200 characters"):
            catalogue_of({name: [1]}, 1)


def test_line_breaks_in_a_value_are_spaces_and_numbers_that_are_none_are_missing(tmp_path):
    made = catalogue_of({"a": ["x\r\ny", "x y", "é"], "b": [float("nan"), None, 1.0], "c": [None, None, True]}, 3)
    opened = Catalogue.load(tmp_path, made.save(tmp_path)[0], 3)
    assert item_sets.members(opened.compile('a = "x y"')).tolist() == [0, 1]
    assert item_sets.members(opened.compile("b > -1e300")).tolist() == [2]
    assert item_sets.members(opened.compile("c != false")).tolist() == [2]


def test_a_column_without_a_value_matches_nothing(tmp_path):
    empty = {"a": pl.Series([None, []], dtype=pl.List(pl.String)), "b": np.array([np.nan, np.nan])}
    opened = Catalogue.load(tmp_path, catalogue_of(empty, 2).save(tmp_path)[0], 2)
    for text in ('a = "x"', 'a != "x"', "b < 5", "b >= 5", "b != 5", "b in (1, 2)"):
        assert item_sets.count(opened.compile(text)) == 0


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("attribute0.values.txt", lambda path: path.write_bytes(b"b\na\n"), "has lines that do not ascend"),
        ("attribute0.values.txt", lambda path: path.write_bytes(b"a\nb"), "ends within a line"),
        ("attribute0.values.txt", lambda path: path.write_bytes(b"a\n"), "has 5 entries; expected 2"),
        ("attribute0.values.txt", lambda path: path.unlink(), "can't be read"),
        ("attribute0.indptr.npy", lambda path: np.save(path, np.arange(5)), "does not rise from 0 to"),
        ("attribute0.items.npy", lambda path: np.save(path, np.full(9, N, np.int32)), r"names an item outside 0\.\.95"),
        ("attribute2.values.npy", lambda path: np.save(path, np.arange(9)[::-1]), "ascending numbers"),
        ("attribute3.values.npy", lambda path: np.save(path, np.full(N - 1, np.nan)), "ascending numbers"),
        ("attribute4.flags.npy", lambda path: np.save(path, np.zeros((2, 9), np.uint64)), "has shape"),
        ("attribute4.flags.npy", lambda path: np.save(path, np.full((2, 2), 1, np.uint64)), "both true and false"),
        ("attribute4.flags.npy", lambda path: np.save(path, np.array([[0, 1 << 63], [0, 0]], np.uint64)), "of no item"),
    ],
)  # fmt: skip
def test_a_damaged_column_is_refused(tmp_path, file, change, message):
    entries, _ = MADE.save(tmp_path)
    change(tmp_path / file)
    with pytest.raises(BundleError, match=message):
        Catalogue.load(tmp_path, entries, N)


def test_a_vocabulary_is_checked_in_parts_and_looked_up(tmp_path, monkeypatch):
    monkeypatch.setattr("nann.filters.vocabulary._CHECKED", 2)
    words = ["", "a", "ab", "b\r", "c", "é"]
    Vocabulary.of(words).save(tmp_path / "words")
    opened = Vocabulary.load(tmp_path / "words")
    assert [each.decode() for each in opened] == [each.decode() for each in opened[:]] == words
    assert [opened.find(word) for word in words] == list(range(6))
    assert [opened.find(word) for word in ("A", "bb", "zz", "éé", "\ud800")] == [None] * 5
    assert [each.decode() for each in opened[1:6:2]] == ["a", "b\r", "é"]
    for swapped in range(5):
        other = [*words[:swapped], words[swapped + 1], words[swapped], *words[swapped + 2 :]]
        Vocabulary.of(other).save(tmp_path / "words")
        with pytest.raises(BundleError, match="has lines that do not ascend"):
            Vocabulary.load(tmp_path / "words")
