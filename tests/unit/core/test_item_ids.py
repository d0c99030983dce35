"""The two kinds of item ids, against plain dictionaries."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nann.errors import BundleError, DataError, RequestError
from nann.features import FeatureTransform
from nann.item_ids import MAX_ID_BYTES, NUMBERS, TEXT, kind_of, kind_of_typed
from nann.signature import BEHAVIOR_ITEM_IDS, ITEM_ID_TENSORS

unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ids = unicode.filter(lambda text: text and "\0" not in text)
catalogues = st.sets(ids | st.sampled_from(["a", "aa", "ab", "é", "日本", "😀", "￿"]), min_size=1).map(sorted)
requested = unicode | st.binary(max_size=5) | st.sampled_from(["", "a", "a\0", b"\xff", "a" * 999, b"a\0", "\ud800"])


def as_object(values: list) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


@given(catalogues, st.data())
def test_lookups_of_texts_are_those_of_a_dictionary(catalogue, data):
    asked = data.draw(st.lists(requested | st.sampled_from(catalogue), max_size=12))
    table = TEXT.stored(catalogue)
    index_of = {text.encode(): index for index, text in enumerate(catalogue)}
    wanted = [index_of.get(encoded(text), -1) for text in asked]
    assert TEXT.indices(table, as_object(asked)).tolist() == wanted
    assert TEXT.is_padding(as_object(asked)).tolist() == [len(text) == 0 for text in asked]
    whole = [text for text in map(encoded, asked) if not text.endswith(b"\0")]
    if whole:
        found = TEXT.indices(table, np.array(whole, np.bytes_))
        assert (found.dtype, found.tolist()) == (np.int32, [index_of.get(text, -1) for text in whole])


@given(catalogues, st.lists(st.integers(-1, 20), max_size=8))
def test_texts_survive_a_bundle(tmp_path_factory, catalogue, picked):
    path = tmp_path_factory.mktemp("ids") / "item_ids.npy"
    np.save(path, TEXT.stored(catalogue), allow_pickle=False)
    table = TEXT.load(path)
    assert isinstance(table.base, np.memmap)
    TEXT.check(table, "ids")
    assert np.all(table[1:] > table[:-1])  # Python's order of texts is the order of their UTF-8
    assert TEXT.plain(table) == catalogue
    items = np.minimum(np.array(picked, np.int32), len(catalogue) - 1)
    answer = TEXT.external(table, items, TEXT.padding)
    assert answer.tolist() == ["" if item < 0 else catalogue[item] for item in items.tolist()]
    assert TEXT.indices(table, answer).tolist() == items.tolist()


@given(catalogues, st.lists(st.lists(requested, min_size=3, max_size=3), max_size=3), st.integers(1, 4))
def test_behaviors_of_text_ids_are_those_of_numbers(catalogue, rows, length):
    numbers = {encoded(text): number for number, text in enumerate(catalogue, 1)}
    texts = FeatureTransform(TEXT.stored(catalogue), length)
    plain = FeatureTransform(np.arange(1, len(catalogue) + 1), length)
    of_texts = np.empty((len(rows), 3), object)
    for place, row in enumerate(rows):
        of_texts[place] = row
    of_numbers = [[numbers.get(encoded(text), 99_999 if text else 0) for text in row] for row in rows]
    found, wanted = texts.behaviors(of_texts), plain.behaviors(np.array(of_numbers, np.int64).reshape(-1, 3))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_lookup_does_not_copy_the_table():
    """NumPy converts the whole table if the keys are wider."""
    table = TEXT.stored([f"{number:06}" for number in range(200_000)])
    table.flags.writeable = False
    tracemalloc.start()
    assert TEXT.indices(table, as_object(["000007", "x" * 1000])).tolist() == [7, -1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < table.nbytes / 10


@pytest.mark.parametrize(
    ("given_ids", "words"),
    [
        (["a", ""], "item_ids has '' in row 1; expected text: the empty one means padding"),
        (["a", "b\0"], r"item_ids has 'b\\x00' in row 1; expected text without NUL"),
        (["\ud800"], r"item_ids has '\\ud800' in row 0; expected text in UTF-8"),
        ([b"\xff"], "in row 0; expected text in UTF-8"),
        (["x" * 257], r"item_ids has 'x+\.\.\. in row 0; expected at most 256 bytes of UTF-8, and it has 257"),
        (["a", 1], "item_ids has 1 in row 1; expected texts alone: ids are all numbers or all texts"),
        ([1, None, "a"], "item_ids has 1 in row 0; expected texts alone"),
        (np.array([["a"]]), r"item_ids has shape \[1, 1\]; expected one text an item"),
        ([0, 1], "item id 0 is not positive; expected 1 or more: 0 and -1 mean padding"),
        ([2**63], f"item id {2**63} is too large; expected at most {2**63 - 1}"),
        ([1.5], r"item_ids is float64\[1\]; expected whole numbers or texts, one an item"),
    ],
)
def test_what_is_no_id_is_refused(given_ids, words):
    with pytest.raises(DataError, match=words):
        kind_of(given_ids).stored(given_ids)


def test_the_longest_id():
    longest = "é" * (MAX_ID_BYTES // 2)
    table = TEXT.stored(["a", longest])
    assert TEXT.indices(table, as_object([longest, longest + "x", longest[:-1]])).tolist() == [1, -1, -1]


def test_kinds_of_given_ids():
    for values in (["a"], [b"a"], np.array(["a"]), np.array([b"a"]), as_object(["a"])):
        assert kind_of(values) is TEXT
    for values in ([1], np.array([1], np.uint16), range(3), []):
        assert kind_of(values) is NUMBERS
    assert kind_of_typed(["1", "20"]) is NUMBERS
    for typed in (["1", "020"], ["a"], ["1.5"], ["-1"], ["1" * 20], ["٣"]):
        assert kind_of_typed(typed) is TEXT


@given(st.lists(ids.filter(lambda text: "\n" not in text and "\r" not in text), min_size=1, max_size=4))
@example(["a,b", '"', "'", " "])
def test_typed_texts_are_read_as_they_were(texts):
    assert TEXT.parse(TEXT.typed(texts)) == texts


def test_typed_ids():
    assert NUMBERS.parse(NUMBERS.typed([11, 12])) == [11, 12]
    assert TEXT.parse("sku-1,0012") == ["sku-1", "0012"]
    assert (NUMBERS.item(" 12 "), TEXT.item("0012")) == (12, "0012")
    for kind, text, words in (
        (NUMBERS, "0", "'0' is no whole number from 1 to"),
        (NUMBERS, "x", "'x' is no whole number from 1 to"),
        (TEXT, "a\0", r"'a\\x00' is no item id: expected text without NUL"),
    ):
        with pytest.raises(ValueError, match=words):
            kind.item(text)


def test_rows_of_a_request():
    assert NUMBERS.row([3, 4]).tolist() == [[3, 4]]
    assert (NUMBERS.row([]).tolist(), TEXT.row([]).tolist()) == ([[0]], [[""]])
    assert TEXT.row(["a"]).tolist() == [["a"]]
    for wrong in (["a", 1], "abc"):
        with pytest.raises(TypeError, match="expected a list of texts"):
            TEXT.row(wrong)


def test_ids_of_the_other_kind_are_refused():
    with pytest.raises(RequestError, match=r"item ids came as object; expected whole numbers \(INT64\), as in the"):
        NUMBERS.indices(np.array([1, 2]), as_object(["a"]))
    with pytest.raises(RequestError, match=r"item ids came as int64; expected text \(BYTES\), as in the bundle"):
        TEXT.indices(TEXT.stored(["a"]), np.array([1]))


def test_tensors_of_both_kinds():
    for tensor in ITEM_ID_TENSORS:
        number, text = NUMBERS.spec(tensor), TEXT.spec(tensor)
        assert number == text == tensor
        assert (number.triton_dtype, number.config_dtype) == ("INT64", "TYPE_INT64")
        assert (text.triton_dtype, text.config_dtype) == ("BYTES", "TYPE_STRING")
    assert {TEXT.spec(BEHAVIOR_ITEM_IDS): 1}[BEHAVIOR_ITEM_IDS] == 1


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (np.array([b"", b"a"]), "holds b''; expected text: the empty one means padding; make the bundle again"),
        (np.array([b"a", b"b\0c"]), r"holds b'b\\x00c'; expected text without NUL"),
        (np.array([b"a", b"\xff"]), r"holds b'\\xff'; expected text in UTF-8"),
        (np.array([1, 2]), r"holds int64\[1 dimensions\]; expected bytes_\[1\]"),
        (np.array(["a"]), r"holds <U1\[1 dimensions\]; expected bytes_\[1\]"),
        (np.array([b"a", b"x" * 257]), "holds ids of up to 257 bytes; expected at most 256; make the bundle again"),
    ],
)
def test_a_file_of_texts_that_are_no_ids_is_refused(tmp_path, table, words):
    path = tmp_path / "item_ids.npy"
    np.save(path, table)
    with pytest.raises(BundleError, match=f"item_ids.npy {words}"):
        TEXT.check(TEXT.load(path), str(path))


def test_typed_ids_that_are_no_line_of_csv():
    with pytest.raises(ValueError, match=r"are no ids with commas between them: .*; quote ids as in CSV"):
        TEXT.parse("line\nbreak,SKU-1")
    assert TEXT.parse('"line\nbreak",SKU-1') == ["line\nbreak", "SKU-1"]
