"""The splitter of CSV rows, against Python's csv module."""

from __future__ import annotations

import csv
import io
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann.errors import ConfigError
from nann.training.data import csv_rows
from nann.training.data.csv_rows import CsvSplitter, TextFormat

NAMES = ["a", "b", "c"]


def split(text, separator=",", lines_a_batch=1_000, **options):
    """Rows of (fields, line, problem)."""
    lines = text.split("\n")
    frame = pl.DataFrame(
        {"text": lines, "number": range(1, len(lines) + 1)}, schema={"text": pl.String, "number": pl.Int64}
    )
    frame = frame.filter(pl.col("text") != "")
    splitter = CsvSplitter(NAMES, separator, TextFormat(**options))
    parts = []
    for start in range(0, frame.height, lines_a_batch):
        batch = frame.slice(start, lines_a_batch)
        parts.append(splitter.split(batch, NAMES, at_end=start + lines_a_batch >= frame.height))
    return [(row[:3], row[3], row[4]) for part in parts for row in part.rows()]


fields = st.lists(st.text('ab,"\n |:', max_size=6), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.lists(fields, max_size=8), st.sampled_from([",", "|", "::"]), st.integers(1, 9), st.booleans())
def test_what_the_csv_module_writes_is_read(rows, separator, lines_a_batch, quote_all):
    """Any fields, with quotes, separators and line breaks inside, however the lines fall into batches."""
    # Blank lines are no rows, inside quotes too.
    rows = [[re.sub("\n+", "\n", field).strip("\n") or "x" for field in row] for row in rows]
    written = io.StringIO()
    # The module writes separators of one character.
    quoting = csv.QUOTE_ALL if quote_all or separator == "::" else csv.QUOTE_MINIMAL
    csv.writer(written, delimiter=separator[0], quoting=quoting, lineterminator="\n").writerows(rows)
    text = written.getvalue()
    if separator == "::":
        text = "\n".join("::".join('"' + field.replace('"', '""') + '"' for field in row) for row in rows)
    read = split(text, separator, lines_a_batch)
    assert [list(row) for row, _, _ in read] == rows
    assert [problem for _, _, problem in read] == [None] * len(rows)
    starts = [1]
    for row in rows:
        starts.append(starts[-1] + 1 + sum(field.count("\n") for field in row))
    assert [line for _, line, _ in read] == starts[: len(rows)]


@settings(max_examples=150, deadline=None)
@given(st.text('a1,"\n', max_size=40), st.integers(1, 9))
def test_broken_quotes_lose_no_line(text, lines_a_batch):
    """Every line is part of a row, good or bad, and batches change nothing."""
    read = split(text, lines_a_batch=lines_a_batch)
    assert read == split(text)
    good = [(line, sum(field.count("\n") for field in row)) for row, line, problem in read if problem is None]
    bad = {line for _, line, problem in read if problem is not None}
    covered = {line + more for line, extra in good for more in range(extra + 1)} | bad
    in_text = {number for number, line in enumerate(text.split("\n"), 1) if line}
    assert bad <= in_text
    blank = sum(not line for line in text.split("\n"))
    # Blank lines inside quotes are left out, so a row may reach that much further.
    assert not blank or len(in_text - covered) <= blank
    assert blank or in_text == covered
    for row, line, problem in read:
        plain = text.split("\n")[line - 1]
        if '"' not in plain and problem is None:
            assert list(row) == plain.split(",")


def test_a_quote_that_never_closes_is_one_bad_row(monkeypatch):
    monkeypatch.setattr(csv_rows, "_MAX_RECORD_LINES", 4)
    text = '1,"2,3\n' + "1,2,3\n" * 9
    for batch in (1, 2, 3, 50):
        read = split(text, lines_a_batch=batch)
        assert [problem is None for _, _, problem in read] == [False] + [True] * 9


def test_escapes_and_quotes_by_option():
    assert split('a\\,b,\\N,"x\\"y"', escape="\\")[0][0] == ("a,b", "", 'x"y')
    assert split('5" disk,"2,3', quote="")[0][0] == ('5" disk', '"2', "3")
    assert split("x\\\ty\t1\t2", "\t", escape="\\", quote="")[0][0] == ("x\ty", "1", "2")
    with pytest.raises(ConfigError, match="quote is 'ab'; expected one character that is no letter and no separator"):
        TextFormat(quote="ab")
    with pytest.raises(ConfigError, match="encoding is 'latin-x'; expected one that Python knows, such as utf-8"):
        TextFormat(encoding="latin-x")
    with pytest.raises(ConfigError, match="encoding is 'base64'"):
        TextFormat(encoding="base64")
