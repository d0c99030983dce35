"""The parsers of logs, against Python's own: CSV, times, JSON lines, packed files, encodings."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from nann.errors import ConfigError, DataError, NannError
from nann.training.data import csv_rows
from nann.training.data.canonical_rows import LogColumns, LogRules, exploded
from nann.training.data.csv_rows import CsvSplitter, TextFormat
from nann.training.data.custom_log import read_log
from nann.training.data.files import log_files
from nann.training.data.item_table import ItemTable
from nann.training.data.json_rows import json_rows, json_schema
from nann.training.data.times import TimeColumn, date_form, parse_time

HEADER = "user,item,time\n"
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


moments = st.datetimes(datetime(1975, 1, 1), datetime(2099, 12, 31)).map(
    lambda moment: moment.replace(tzinfo=timezone.utc)
)
zones = st.sampled_from(["", "Z", "z", " UTC", "+00", "+02:00", "-0730", " +05:30", "-03"])


def hours_of(zone):
    digits = zone.strip().lstrip("+-").replace(":", "")
    if not digits.isdecimal():
        return 0.0
    return (-1 if "-" in zone else 1) * (int(digits[:2]) + int(digits[2:] or 0) / 60)


@settings(max_examples=200, deadline=None)
@given(
    moments,
    st.sampled_from(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y%m%dT%H%M%S", "%Y-%m-%dt%H:%M", "%Y/%m/%d %H:%M:%S"]),
    zones,
    st.integers(0, 9),
)
def test_iso_8601_against_datetime(moment, form, zone, digits):
    fraction = f".{moment.microsecond:06d}000"[: digits + 1] if digits and form.endswith("S") else ""
    kept = int(f"{fraction[1:]:0<6.6}" or 0)
    local = moment.replace(microsecond=kept, second=moment.second if form.endswith("S") else 0)
    expected = local - timedelta(hours=hours_of(zone))
    text = moment.strftime(form) + fraction + zone
    assert parse_time(text) == (expected - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1), text


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S"])
@pytest.mark.parametrize("kind", [pl.String, pl.Int64, pl.Float64])
def test_dates_as_numbers_are_refused_with_the_option_that_reads_them(tmp_path, scratch, form, kind):
    moments = [datetime(2024, 1, 31, 12, 30, 1, tzinfo=timezone.utc) + timedelta(days=day) for day in range(60)]
    written = pl.Series([None, *(moment.strftime(form) for moment in moments)]).cast(pl.Int64).cast(kind)
    frame = pl.DataFrame({"user": 1, "item": range(1, 62), "time": written})
    frame.write_parquet(tmp_path / "log.parquet")
    example = re.escape(str(written[1]))
    with pytest.raises(
        DataError,
        match=rf"time \(column 'time'\) has dates that are written as numbers, such as {example} \(log.parquet:2\), "
        rf"which are no times since 1970; read them with --time-format {form}$",
    ):
        read_log([tmp_path / "log.parquet"], LogColumns(), scratch, max_bad_share=1)
    rules = LogRules(time_format=form)
    read = read_log([tmp_path / "log.parquet"], LogColumns(), scratch, rules=rules, max_bad_share=0.1)
    expected = [datetime.strptime(moment.strftime(form), form).replace(tzinfo=timezone.utc) for moment in moments]
    assert read.rows.collect()["time"].to_list() == [int(moment.timestamp()) * 1_000_000 for moment in expected]
    assert date_form(pl.Series(["20241331", "20240001", "20240230"])) is None  # months and days that there are not
    assert date_form(pl.Series([1706700601, 1706700602])) is None
    assert parse_time(moments[0].strftime(form)) is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(160_000_000, 4_000_000_000), min_size=1),
    st.sampled_from([1, 10**3, 10**6, 10**9]),
    st.booleans(),
)
def test_the_unit_is_that_of_the_column(seconds, scale, as_text):
    """Zero is 1970 in every unit, and a number of another unit is no time."""
    values = pl.Series("t", [*(value * scale for value in seconds), 0, 1_600_000_000 * (10**6 if scale < 10**6 else 1)])
    values = values.cast(pl.String) if as_text else values
    unit = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}[scale]
    read = TimeColumn("t", unit).microseconds(values).to_list()
    assert read == [*(value * 1_000_000 for value in seconds), 0, None]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (pl.Date, "dates"),
        (pl.Datetime("ms"), "timestamps in UTC: they have no zone"),
        (pl.Datetime("us", "Europe/Berlin"), "timestamps in Europe/Berlin"),
    ],
    ids=str,
)
def test_times_of_parquet_in_words(kind, words):
    assert TimeColumn("t").described(pl.Series("t", [0]).cast(kind)) == words


def test_times_by_format(write, scratch):
    log = write("log.csv", HEADER + "1,2,01.10.2019 12:30\n")
    read = read_log([log], LogColumns(), scratch, rules=LogRules(time_format="%d.%m.%Y %H:%M"))
    assert read.rows.collect()["time"].to_list() == [1569933000_000000]
    assert read.settings["found"]["time"].startswith("text as '%d.%m.%Y %H:%M', from 2019-10-01 12:30:00")
    numbers = write("n.csv", HEADER + "1,2,20191001\n")
    read = read_log([numbers], LogColumns(), scratch, rules=LogRules(time_format="%Y%m%d"))
    assert read.rows.collect()["time"].to_list() == [1569888000_000000]
    with pytest.raises(
        DataError, match=r"time \(column 'time'\) is not as '%Y'. First: log.csv:2 \('01.10.2019 12:30'\)"
    ):
        read_log([log], LogColumns(), scratch, rules=LogRules(time_format="%Y"))
    with pytest.raises(ConfigError, match=r"time format .* can't be used"):
        TimeColumn("t", form="%Q")


PACK = {
    "log.csv": bytes,
    "log.gz": gzip.compress,
    "log.bz2": bz2.compress,
    "log.xz": lzma.compress,
    "log.zst": zstandard.compress,
}


@pytest.mark.parametrize("name", PACK)
def test_packed_files_are_read_and_damaged_ones_refused(write, scratch, name):
    text = "".join(f"{user},{user % 7 + 1},{user}\n" for user in range(3_000))
    packed = PACK[name](HEADER.encode()) + PACK[name](text.encode())  # two members or frames
    log = read_log([write(name, packed)], LogColumns(), scratch)
    assert log.rows.collect()["user"].to_list() == list(range(3_000))
    if name == "log.csv":
        return
    for damaged in (packed[:-7], packed[:-200] + b"!" * 9 + packed[-190:]):
        with pytest.raises(DataError, match=r"is a damaged \w+ file .*; expected a whole one: copy it again"):
            read_log([write(name, damaged)], LogColumns(), scratch)
    with pytest.raises(DataError, match=r"is named \.\w+ and its content is not \w+; rename it if it is plain text"):
        read_log([write(name, text)], LogColumns(), scratch)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "latin-1", "cp1252", "gb18030", "shift-jis"])
@pytest.mark.parametrize("batch_bytes", [1, 7, 1 << 20])
def test_encodings(write, scratch, encoding, batch_bytes):
    names = ["Jos\u00e9", "Zo\u00eb"] if encoding in ("latin-1", "cp1252") else ["\u8868", "\u30bd", "ab"]
    text = HEADER + "".join(f"{name},1,{place}\n" for place, name in enumerate(names))
    log = read_log(
        [write("log.csv", text.encode(encoding))],
        LogColumns(),
        scratch,
        text=TextFormat(encoding=encoding),
        batch_bytes=batch_bytes,
    )
    assert log.rows.collect()["user"].to_list() == names


def test_utf_16_without_its_mark_is_refused(write, scratch):
    path = write("log.csv", HEADER + "1,2,3\n")
    with pytest.raises(
        DataError, match=r"log.csv is not in UTF-16 \(UTF-16 stream does not start with BOM\); name its --en"
    ):
        read_log([path], LogColumns(), scratch, text=TextFormat(encoding="utf-16"))


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
        "log.jsonl:4 (no JSON object, or a value of another type than in the first lines)",
    )
    assert log.conversions == ("1 rows have empty lists, and so no behaviours",)
    with pytest.raises(DataError, match=r"is a JSON array; expected one object a line: jq -c"):
        read_log([write("a.json", json.dumps(lines))], LogColumns(), scratch)
    assert json_schema(['{"a": 1}', "x", '{"a": [1], "b": null}']) == {"a": pl.List(pl.String), "b": pl.String()}


def test_exploding_keeps_the_order():
    frame = pl.DataFrame({"i": [[3, 1], [2]], csv_rows.LINE: [1, 2], csv_rows.MALFORMED: [None, None]})
    rows, empty = exploded(frame.with_columns(pl.col(csv_rows.MALFORMED).cast(pl.String)), ["i"])
    assert (rows["i"].to_list(), empty) == ([3, 1, 2], 0)


def test_folders_patterns_and_partitions(tmp_path):
    for name in (
        "day=2%3A4/a=x/p1.csv",
        "day=__HIVE_DEFAULT_PARTITION__/p0.csv",
        "_SUCCESS",
        ".hidden",
        "_logs/x",
        "empty.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if name == "empty.csv" else "x")
    found = {file.label: dict(file.partitions) for file in log_files([tmp_path])}
    assert found == {
        "day=2%3A4/a=x/p1.csv": {"day": "2:4", "a": "x"},
        "day=__HIVE_DEFAULT_PARTITION__/p0.csv": {"day": None},
    }
    assert [file.label for file in log_files([tmp_path / "day*" / "*.csv"])] == ["p0.csv"]
    (tmp_path / "none").mkdir()
    with pytest.raises(
        DataError, match=r"none is a folder without a file to read; hidden and empty files and _SUCCESS"
    ):
        log_files([tmp_path / "none"])


def test_keys_of_binary_and_decimal_columns(tmp_path, scratch):
    frame = pl.DataFrame(
        {
            "user": [b"a", "\u00e9".encode(), b"\xff", b"a"],
            "item": pl.Series(["1.00", "2.00", "3.00", "2.50"]).cast(pl.Decimal(10, 2)),
            "time": [1, 2, 3, 4],
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    log = read_log([tmp_path / "log.parquet"], LogColumns(), scratch, max_bad_share=0.5)
    assert log.rows.select("user", "item").collect().rows() == [("a", 1), ("\u00e9", 2)]
    assert log.counts.bad_by_reason == {
        "user (column 'user') is damaged text, or in another encoding": 1,
        "item (column 'item') is neither a whole number nor text": 1,
    }


EVENTS = "user,item,time,type,stars\n" + "1,2,3,buy,5\n1,,4,search,\n1,3,5,cart,2\n1,NULL,6,buy,4\n1,4,7, buy,x\n"


def test_events_values_and_missing_values(write, scratch):
    path = write("log.csv", EVENTS)
    columns, text = LogColumns(event="type", value="stars"), TextFormat(nulls=("NULL",))
    rules = LogRules(events=("buy", "cart"), min_value=4)
    log = read_log([path], columns, scratch, rules=rules, text=text, max_bad_share=0.5)
    assert log.rows.collect()["item"].to_list() == [2]
    assert (log.counts.read, log.counts.bad, log.counts.filtered) == (5, 2, 2)
    assert log.counts.bad_examples == (
        "log.csv:5 (empty item (column 'item'))",
        "log.csv:6 (value (column 'stars') is no number: 'x')",
    )
    assert log.settings["found"]["events"] == "kept buy (3), cart (1); left out search (1)"
    with pytest.raises(
        DataError, match=r"no row has the event 'bye'; the log has buy \(3\), cart \(1\), search \(1\): name"
    ):
        read_log([path], LogColumns(event="type"), scratch, rules=LogRules(events=("bye",)))


@pytest.mark.parametrize(
    ("columns", "rules", "message"),
    [
        ({"event": "type"}, {}, "--event-column and --events are given together"),
        ({}, {"min_value": 1}, "--value-column and --min-value are given together"),
        ({}, {"item_ids": "numbers"}, "item ids are 'numbers'; expected one of auto, number, text"),
        ({"time": None}, {"time_format": "%Y"}, "a time format is given for a log without times"),
    ],
)
def test_rules_that_do_not_fit(write, scratch, columns, rules, message):
    with pytest.raises(ConfigError, match=message):
        read_log([write("log.csv", HEADER + "1,2,3\n")], LogColumns(**columns), scratch, rules=LogRules(**rules))


def test_items_too_long_for_an_id_are_bad_rows(write, scratch):
    path = write("log.csv", HEADER + f"1,sku,3\n1,{'x' * 300},3\n")
    log = read_log([path], LogColumns(), scratch, max_bad_share=0.5)
    (example,) = log.counts.bad_examples
    assert example.startswith("log.csv:3 (item (column 'item') is longer than 256 bytes or has a NUL: 'xxx")
    assert len(example) < 200


def test_advice_fits_the_share_of_bad_rows(write, scratch):
    few = write("few.csv", HEADER + "1,2,3\n" * 95 + "1,2,soon\n" * 5)
    with pytest.raises(DataError, match=r"5 of 100 rows are bad.*Correct these rows, or raise .* --max-bad-share"):
        read_log([few], LogColumns(), scratch)
    with pytest.raises(
        DataError, match=r"So many are seldom damaged, but read in the wrong way: --time-format says how"
    ):
        read_log([write("many.csv", HEADER + "1,2,soon\n")], LogColumns(), scratch)


pieces = st.sampled_from(
    [
        b"user,item,time",
        b"\n",
        b"1,2,3\n",
        b'"',
        b",",
        b"\xff",
        b"\x00",
        b'{"user": 1, "item": [2], "time": "3"}',
        b"\r",
        b"[",
        b"{",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(pieces | st.binary(max_size=4), max_size=12),
    st.sampled_from(sorted(PACK)),
    st.sampled_from(["utf-8", "utf-16", "gb18030"]),
)
def test_any_bytes_are_a_log_or_an_error_of_ours(tmp_path_factory, parts, packed, encoding):
    folder = tmp_path_factory.mktemp("any")
    (folder / packed).write_bytes(PACK[packed](b"".join(parts)))
    with suppress(NannError):
        log = read_log([folder / packed], LogColumns(), folder, text=TextFormat(encoding=encoding), max_bad_share=1)
        assert log.rows.collect().null_count().row(0) == (0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2_000))
def test_any_damage_of_a_parquet_file_is_an_error_of_ours(tmp_path_factory, junk, place):
    folder = tmp_path_factory.mktemp("any")
    path = folder / "log.parquet"
    pl.DataFrame({"user": ["a"] * 50, "item": range(50), "time": range(50)}).write_parquet(path)
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + junk + whole[place + len(junk) :])
    with suppress(NannError):
        read_log([path], LogColumns(), folder, max_bad_share=1)


def test_a_table_of_items_has_the_ids_as_the_log_has_them(write, tmp_path, scratch):
    log = write("log.csv", HEADER + "1,007,3\n1,8,3\n")
    items = write("items.csv", "item;price\n007;1\n7;2\n8;3\n;4\n")
    read = read_log([log], LogColumns(), scratch, items=ItemTable(items, numbers=("price",)))
    assert dict(read.attributes.frame.select("item", "field_0").rows()) == {"007": 1, "7": 2, "8": 3}
    assert read.conversions[0].endswith(
        "items.csv have no item in column 'item', the first has '' (items.csv:5): left out"
    )
    numbers = write("numbers.csv", HEADER + "1,7,3\n1,8,3\n")
    read = read_log([numbers], LogColumns(), scratch, items=ItemTable(items, numbers=("price",)))
    assert dict(read.attributes.frame.select("item", "field_0").rows()) == {7: 2, 8: 3}


def test_a_sample_is_read_and_no_more(write, scratch):
    path = write("log.csv", HEADER + "".join(f"{user},2,3\n" for user in range(10_000)))
    log = read_log([path], LogColumns(), scratch, max_rows=100, batch_bytes=1_000)
    assert 100 <= log.counts.read < 300
