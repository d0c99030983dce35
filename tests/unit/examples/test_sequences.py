"""Sequence files as papers publish them, as a log and a table of items."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cli_commands import nann

from examples.sequences import main, read_attributes, read_sequences
from nann.errors import DataError

sequences = st.dictionaries(
    st.integers(-5, 10**12), st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=6), min_size=1
)


@pytest.fixture
def write(tmp_path: Path):
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@given(sequences, st.booleans())
def test_what_was_written_is_read(tmp_path_factory, sequences, packed):
    text = "\n".join(" ".join(map(str, (user, *items))) for user, items in sequences.items())
    path = tmp_path_factory.mktemp("sequences") / "file"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    log = read_sequences(path)
    assert log.schema == {"user": pl.String, "item": pl.Int64, "time": pl.Int64}
    assert log.rows() == [
        (str(user), item, time) for user, items in sequences.items() for time, item in enumerate(items)
    ]


def test_tabs_blank_lines_and_users_with_names(write):
    assert read_sequences(write("s.txt", "ann\t3  4\r\n\n7 3\n")).rows() == [("ann", 3, 0), ("ann", 4, 1), ("7", 3, 0)]


@pytest.mark.parametrize(
    "line", ["2", "2 3 x", "2 3 0", "2 -3", "2 3.5", "2 1_0", "2 ٣", f"2 {2**63}", "2 " + "9" * 90]
)
def test_a_line_that_is_no_sequence(write, line):
    with pytest.raises(DataError, match=r"s\.txt:2 is '2.*; expected a user and items, which are positive numbers"):
        read_sequences(write("s.txt", f"1 2 3\n{line}\n"))


def test_a_user_with_two_lines(write):
    with pytest.raises(DataError, match=r"s\.txt:3: user '1' has a line before; expected one a user: join them"):
        read_sequences(write("s.txt", "1 2 3\n2 3\n1 4\n"))


def test_a_file_without_sequences(write):
    with pytest.raises(DataError, match=r"s\.txt has no line; expected one a user: user item item \.\.\."):
        read_sequences(write("s.txt", "\n \n"))


@pytest.mark.parametrize("content", [gzip.compress(b"1 2 3")[:-4], gzip.compress(b"1" * 99)[:12] + b"xx", b"1 \xff"])
def test_a_damaged_file(write, content):
    with pytest.raises(DataError, match=r"s\.txt can't be read \(.*\); expected UTF-8, plain or gzip"):
        read_sequences(write("s.txt", content))


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"s\.txt is no file; expected a text or JSON file, plain or gzip"):
        read_sequences(tmp_path / "s.txt")


def test_attributes(write):
    items = read_attributes(write("a.json.gz", gzip.compress(b'{"20": [3, "red"], "4": [], "5": [3]}')))
    assert items.schema == {"item": pl.Int64, "attributes": pl.List(pl.String)}
    assert items.rows() == [(4, []), (5, ["3"]), (20, ["3", "red"])]


@pytest.mark.parametrize(
    ("body", "shown"),
    [({"0": [1]}, r"\{'0': \[1\]\}"), ({"a": [1]}, r"\{'a'"), ({"1": 5}, r"\{'1': 5\}"), ([1, 2], r"\{'': \[1, 2\]\}")],
)
def test_attributes_of_another_form(write, body, shown):
    with pytest.raises(DataError, match=rf"a\.json holds {shown}.*; expected \{{item: \[attribute, \.\.\.\]\}}"):
        read_attributes(write("a.json", json.dumps(body)))


def test_attributes_that_are_no_json(write):
    with pytest.raises(DataError, match=r"a\.json is not JSON \(.*\); expected \{item: \[attribute, \.\.\.\]\}"):
        read_attributes(write("a.json", "{1: [2]}"))


def test_the_log_is_accepted_by_prepare(write, tmp_path, capsys):
    text = "".join(f"{user} {user % 3 + 1} {user % 5 + 4} {user % 7 + 9} {user % 4 + 16}\n" for user in range(1, 31))
    attributes = {item: [item % 2, 7] for item in range(1, 16)}
    main(write("s.txt", text), write("a.json", json.dumps(attributes)), tmp_path / "out")
    assert "120 events, 30 users, 19 items, 15 of them with attributes" in capsys.readouterr().out
    items = ("--items", tmp_path / "out/items.parquet", "--protocol", "leave-one-out", "--test-users", 30)
    ended = nann("prepare", "log", tmp_path / "out/log.parquet", *items, "--out", tmp_path / "data", "--json")
    assert ended.code == 0, ended.stderr
    counts = ended.json["counts"]
    assert (counts["users"], counts["items"], counts["behaviors"]) == (30, 19, 120)
