"""A log with text ids is prepared like the same log with numbers, in the order of the ids' UTF-8 bytes."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann.errors import DataError
from nann.item_ids import MAX_ID_BYTES, TEXT
from nann.training.data.item_table import ItemValues
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol
from nann.training.data.rows import InteractionLog, RowCounts

NAMES = ["", "0001", "1", "10", "9", "B0012", "Zähler", "a b", "sku-1", "sku-10", "éclair", "日本", "😀"]
"""By the item's number, ascending by their bytes; item 0 does not exist."""
EVERY_ITEM = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]] * 3


def log_of(user_items: list[list[int]], ids: list[str] | None) -> InteractionLog:
    each = [(user, item, step) for user, items in enumerate(user_items) for step, item in enumerate(items)]
    frame = pl.DataFrame(each, schema={"user": pl.Int64, "item": pl.Int64, "time": pl.Int64}, orient="row")
    frame = frame.with_columns(category=pl.col("item") % 3)
    table = pl.DataFrame(
        {"item": pl.Series(range(1, 12), dtype=pl.Int64), "field_0": [["x"], ["y"], ["x"]] * 3 + [["y"]] * 2}
    )
    if ids is not None:
        text = pl.col("item").replace_strict(dict(enumerate(ids)), default=None, return_dtype=pl.String)
        frame, table = frame.with_columns(text), table.with_columns(text).drop_nulls("item")
    values = ItemValues(table, ("colour",), "items.csv", ())
    return InteractionLog("log", ("log",), frame.lazy(), RowCounts(frame.height), attributes=values)


def prepared(log: InteractionLog, out, **options) -> PreparedData:
    prepare(lambda _: log, out, Protocol(2, 1, 1, **options))
    return PreparedData.load(out)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, len(NAMES) - 1), min_size=2, max_size=8), min_size=4, max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_text_ids_change_nothing_but_the_ids(tmp_path_factory, user_items, merge, exclude):
    if not any(1 <= item <= 11 for items in user_items for item in items):
        return
    options = {"merge_repeats": merge, "exclude_history": exclude}
    folder = tmp_path_factory.mktemp("data")
    try:
        numbers = prepared(log_of(user_items, None), folder / "numbers", **options)
    except DataError as error:
        with pytest.raises(DataError, match=re.escape(str(error))):
            prepared(log_of(user_items, NAMES), folder / "texts", **options)
        return
    texts = prepared(log_of(user_items, NAMES), folder / "texts", **options)
    assert texts.item_ids.tolist() == [NAMES[item].encode() for item in numbers.item_ids]
    assert texts.item_ids.tolist() == sorted(texts.item_ids.tolist())
    for name in ("item_categories", "train_counts", "behavior_items", "behavior_group_first", "user_train_end"):
        assert np.array_equal(getattr(numbers, name), getattr(texts, name))
    assert np.array_equal(numbers.item_attributes.codes, texts.item_attributes.codes)
    assert numbers.attributes.equals(texts.attributes)
    assert numbers.manifest["counts"] == texts.manifest["counts"]
    for split in ("validation", "test"):
        if len(numbers.target_users(split)):
            wanted, found = (data.queries(split, 5) for data in (numbers, texts))
            assert np.array_equal(wanted.behaviors, found.behaviors)
            assert found.external_ids.tolist() == [[NAMES[item] for item in row] for row in wanted.external_ids]


def test_other_ids_are_another_data_set(tmp_path):
    one, other = (prepared(log_of(EVERY_ITEM, [*NAMES[:-1], last]), tmp_path / last).identity for last in ("😀", "😃"))
    assert one != other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "item id ''; expected text: the empty one means padding"),
        ("a\0", r"item id 'a\\x00'; expected text without NUL"),
        ("ä" * 129, f"item id 'ä+\\.\\.\\.; expected at most {MAX_ID_BYTES} bytes of UTF-8, and it has 258"),
    ],
)
def test_texts_that_are_no_ids_are_refused(tmp_path, text, said):
    log = log_of(EVERY_ITEM, [*NAMES[:-1], text])
    with pytest.raises(DataError, match=f"the log has the {said}"):
        prepared(log, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_longest_text_is_an_id(tmp_path):
    longest = "😀" * (MAX_ID_BYTES // 4)
    data = prepared(log_of(EVERY_ITEM, [*NAMES[:-1], longest]), tmp_path / "out")
    assert data.id_kind is TEXT
    assert data.item_ids[-1].decode() == longest
