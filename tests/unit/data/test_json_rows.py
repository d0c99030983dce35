"""Rows of JSON lines, against Python's json module, and lists of them as several rows."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann.errors import DataError
from nann.training.data import csv_rows
from nann.training.data.canonical_rows import LogColumns, exploded
from nann.training.data.custom_log import read_log
from nann.training.data.json_rows import json_rows, json_schema

NAMES = ["a", "b", "c"]


json_values = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.text(st.characters(codec="utf-8")), st.booleans(), st.none()
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(st.dictionaries(st.sampled_from(NAMES), json_values), st.just("{bad"), st.just("[1]")), min_size=1
    )
)
def test_json_lines_against_the_json_module(bodies):
    lines = [body if isinstance(body, str) else json.dumps(body, ensure_ascii=False) for body in bodies]
    schema = dict.fromkeys(NAMES, pl.String())
    rows = json_rows(pl.Series(lines), schema).to_list()
    for body, row in zip(bodies, rows, strict=True):
        if isinstance(body, str):
            assert row is None or set(row.values()) == {None}
            continue
        for name in NAMES:
            value = body.get(name)
            expected = None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert row[name] == expected


def test_json_sessions_and_bad_lines(write, scratch):
    lines = [{"user": "a", "item": [1, 2], "time": [5, 6]}, {"user": "b", "item": [], "time": []}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"user": "c", "item": [3], "time": [1, 2]}\n{"user":\n'
    log = read_log([write("log.jsonl", text)], LogColumns(), scratch, max_bad_share=1)
    assert log.rows.select("user", "item", "time").collect().rows() == [("a", 1, 5_000_000), ("a", 2, 6_000_000)]
    assert log.counts.bad_examples == (
        "log.jsonl:3 (lists of different lengths)",
        "log.jsonl:4 (no JSON object)",
    )
    assert log.conversions == ("1 rows have empty lists, and so no behaviours",)
    with pytest.raises(DataError, match=r"is a JSON array; expected one object a line: jq -c"):
        read_log([write("a.json", json.dumps(lines))], LogColumns(), scratch)
    assert json_schema(['{"a": 1}', "x", '{"a": [1], "b": null}']) == {"a": pl.List(pl.String), "b": pl.String()}


@pytest.mark.parametrize(
    ("item", "reason", "advice"),
    [
        (
            [3],
            "a list in column 'item', which has none in the first lines",
            "write a list in each line, or in none",
        ),
        (
            {"id": 3},
            "an object or a nested list in column 'item'; expected numbers or text",
            "take the values out of the objects, as jq -c '.item = .item.id' does",
        ),
        ([[3]], "an object or a nested list in column 'item'; expected numbers or text", "take the values out"),
        (float("nan"), "no JSON object", "see --help"),  # Python writes it so, and JSON has no such number
    ],
)
def test_json_values_of_another_type_name_their_column(write, scratch, item, reason, advice):
    """The first lines, by which columns are of lists or not, are a thousand."""
    lines = [{"user": row % 7, "item": 1 + row % 5, "time": row + 3} for row in range(1_000)]
    text = "\n".join(map(json.dumps, [*lines, *({**line, "item": item} for line in lines[:500])])) + "\n"
    place = re.escape(f"500 of 1,500 rows are bad (33.3%; at most 1.0% may be): 500 {reason}. First: log.jsonl:1001; ")
    with pytest.raises(DataError, match=place + ".* wrong way[:;] " + re.escape(advice)):
        read_log([write("log.jsonl", text)], LogColumns(), scratch)
    assert read_log([write("log.jsonl", text)], LogColumns(), scratch, max_bad_share=0.5).counts.bad == 500


def test_lists_of_lists_are_told_from_lists(write, scratch):
    lines = [{"user": 1, "item": [1, 2], "time": [3, 4]}, {"user": 1, "item": [1, [2]], "time": [3, 4]}]
    text = "\n".join(map(json.dumps, lines)) + "\n"
    log = read_log([write("log.jsonl", text)], LogColumns(), scratch, max_bad_share=0.5)
    said = "log.jsonl:2 (an object or a nested list in column 'item'; expected numbers or text)"
    assert log.counts.bad_examples == (said,)


def test_exploding_keeps_the_order():
    frame = pl.DataFrame({"i": [[3, 1], [2]], csv_rows.LINE: [1, 2], csv_rows.MALFORMED: [None, None]})
    rows, empty = exploded(frame.with_columns(pl.col(csv_rows.MALFORMED).cast(pl.String)), ["i"])
    assert (rows["i"].to_list(), empty) == ([3, 1, 2], 0)
