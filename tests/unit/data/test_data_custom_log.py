from __future__ import annotations

import gzip
from datetime import date, datetime, timezone

import polars as pl
import pytest

from nann.errors import ConfigError, DataError
from nann.training.data.canonical_rows import LogColumns, LogRules
from nann.training.data.csv_rows import TextFormat
from nann.training.data.custom_log import read_log
from nann.training.data.log_source import ProfileTable

HEADER = "user,item,time\n"


def rows_of(log, *columns):
    return log.rows.select(*columns).collect().rows()


@pytest.mark.parametrize("batch_bytes", [1, 20, 1 << 20])
@pytest.mark.parametrize("packed", [True, False])
def test_csv_by_naming_columns(write, scratch, packed, batch_bytes):
    text = b'shop;uid;"when";sku;kind;visit\nx;7;100;5;"a; ""b""";s1\nx;8;99.5;6;;s2\n'
    path = write("log.csv", gzip.compress(text) if packed else text)
    columns = LogColumns("uid", "sku", "when", "kind", "visit")
    log = read_log([path], columns, scratch, text=TextFormat(";"), batch_bytes=batch_bytes)
    assert rows_of(log, "user", "item", "time", "category", "basket") == [
        (7, 5, 100_000_000, 'a; "b"', "s1"),
        (8, 6, 99_500_000, None, "s2"),
    ]
    assert log.counts.read == 2


def test_parquet_in_slices_with_all_kinds_of_columns(tmp_path, scratch):
    path = tmp_path / "log.parquet"
    times = [datetime(2024, 1, 1, tzinfo=timezone.utc), datetime(2024, 1, 2, tzinfo=timezone.utc), None]
    frame = pl.DataFrame(
        {
            "number": [3, 4, 5],
            "text": [1.0, 2.0, 3.5],
            "t": times,
            "c": pl.Series(["a", "b", None], dtype=pl.Categorical),
        }
    )
    frame.write_parquet(path)
    log = read_log([path], LogColumns("number", "text", "t", "c"), scratch, max_bad_share=1, batch_rows=1)
    assert rows_of(log, "user", "item", "category") == [(3, 1, "a"), (4, 2, "b")]
    assert log.rows.collect()["time"].diff().to_list() == [None, 86_400_000_000]
    assert log.counts.bad_examples == (
        "log.parquet:3 (item (column 'text') is neither a whole number nor text: '3.5')",
    )


def test_csv_and_parquet_together(write, tmp_path, scratch):
    pl.DataFrame({"user": [1], "item": [2], "time": [date(1970, 1, 2)]}).write_parquet(tmp_path / "b.parquet")
    files = [write("a.csv", HEADER + "9,1,0\n"), tmp_path / "b.parquet"]
    assert rows_of(read_log(files, LogColumns(), scratch), "user", "item", "time") == [
        (9, 1, 0),
        (1, 2, 86_400_000_000),
    ]


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1511544070", 1511544070_000000),
        (" 1511544070.25 ", 1511544070_250000),
        ("-3", -3_000000),
        ("2017-01-01", 1483228800_000000),
        ("2017-01-01 12:30", 1483273800_000000),
        ("2017-01-01T12:30:00", 1483273800_000000),
        ("2017-01-01 12:30:00.25", 1483273800_250000),
        ("2017-01-01T12:30:00Z", 1483273800_000000),
        ("2017-01-01T12:30:00+02:00", 1483266600_000000),
    ],
)
def test_times(write, scratch, text, microseconds):
    log = read_log([write("log.csv", f"{HEADER}1,2,{text}\n")], LogColumns(), scratch)
    assert rows_of(log, "time") == [(microseconds,)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,2", "wrong number of columns"),
        ("1,2,3,4", "wrong number of columns"),
        ('"1",2', "wrong number of columns"),
        ('1,"2,3', "a quote that does not close, or text after it"),
        ('1,"2"x,3', "a quote that does not close, or text after it"),
        (" ,2,3", "empty user (column 'user')"),
        ("1,,3", "empty item (column 'item')"),
        ("1,2,soon", "time (column 'time') is neither a number of seconds nor an ISO timestamp: 'soon'"),
        ("1,2,nan", "time (column 'time') is neither a number of seconds nor an ISO timestamp: 'nan'"),
        ("1,2,inf", "time (column 'time') is neither a number of seconds nor an ISO timestamp: 'inf'"),
        (
            "1,2,1511544070000000",
            "time (column 'time') is a number of microseconds; expected seconds, as 3 is (log.csv:2): "
            "'1511544070000000'",
        ),
        ("1,2,2017-13-45", "time (column 'time') is neither a number of seconds nor an ISO timestamp: '2017-13-45'"),
    ],
)
def test_counts_each_kind_of_bad_row_with_its_line(write, scratch, line, reason):
    path = write("log.csv", f"{HEADER}1,2,3\n{line}\n1,2,3\n")
    log = read_log([path], LogColumns(), scratch, max_bad_share=0.5)
    assert log.counts.bad_examples == (f"log.csv:3 ({reason})",)
    assert len(rows_of(log, "user")) == 2
    with pytest.raises(DataError, match="1 of 3 rows are bad"):
        read_log([path], LogColumns(), scratch)


def test_an_empty_basket_is_a_bad_row(write, scratch):
    path = write("log.csv", "user,item,time,b\n1,2,3,\n1,2,3,x\n")
    log = read_log([path], LogColumns(basket="b"), scratch, max_bad_share=0.5)
    assert log.counts.bad_examples == ("log.csv:2 (empty basket (column 'b'))",)


@pytest.mark.parametrize(("asked", "expected"), [("number", 12), ("auto", "12.0"), ("text", "12.0")])
def test_items_written_as_decimals_are_numbers_if_asked(write, scratch, asked, expected):
    log = read_log([write("log.csv", HEADER + "1,12.0,3\n")], LogColumns(), scratch, rules=LogRules(item_ids=asked))
    assert rows_of(log, "item") == [(expected,)]


@pytest.mark.parametrize("item", ["sku-7", "0", "-1", "9223372036854775808", "007", "+7"])
def test_one_item_that_is_no_plain_number_makes_all_of_them_text(write, scratch, item):
    path = write("log.csv", f"{HEADER}1,2,3\n1,{item},3\n1,2,3\n")
    log = read_log([path], LogColumns(), scratch, batch_bytes=5)
    assert rows_of(log, "item") == [("2",), (item,), ("2",)]
    why = f"text: {item!r} (log.csv:3) is no plain whole number from 1 to 2^63 - 1"
    assert log.settings["found"]["item ids"] == why
    asked = read_log([path], LogColumns(), scratch, rules=LogRules(item_ids="number"), max_bad_share=0.5)
    assert asked.counts.bad_examples == (
        f"log.csv:3 (item (column 'item') is not a whole number from 1 to 2^63 - 1: {item!r})",
    )
    assert rows_of(asked, "item") == [(2,), (2,)]


@pytest.mark.parametrize("batch_bytes", [20, 1 << 20])
@pytest.mark.parametrize("strays", [0, 1, 9, 10, 100])
def test_a_few_rows_that_make_all_items_text_are_pointed_out(write, scratch, strays, batch_bytes):
    items = [*range(1, 101 - strays), *(f"N/A-{place}" for place in range(strays))]
    path = write("log.csv", HEADER + "".join(f"1,{item},3\n" for item in items))
    log = read_log([path], LogColumns(), scratch, batch_bytes=batch_bytes)
    few = (
        f"item ids are text because of {strays} of 100 rows, the first: 'N/A-0' (log.csv:{102 - strays}) is no plain "
        "whole number from 1 to 2^63 - 1; --item-ids number makes such rows bad ones, --item-ids text says that all "
        "ids are text"
    )
    assert log.conversions == ((few,) if 0 < strays < 10 else ())
    (scratch / "told").mkdir()
    told = read_log([path], LogColumns(), scratch / "told", rules=LogRules(item_ids="text"))
    assert told.conversions == ()


def test_a_cut_last_line_is_counted(write, scratch):
    log = read_log([write("log.csv", HEADER + "1,2,3\n1,2")], LogColumns(), scratch, max_bad_share=0)
    assert (log.counts.read, log.counts.bad, log.counts.cut_last_lines) == (1, 0, 1)


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (["7", "12"], [7, 12]),
        (["007", "7"], ["007", "7"]),
        (["u7", "12"], ["u7", "12"]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
    ],
)
def test_users_are_numbers_only_if_all_are(write, scratch, users, expected):
    text = HEADER + "".join(f"{user},1,1\n" for user in users)
    log = read_log([write("log.csv", text)], LogColumns(), scratch, batch_bytes=20)
    assert log.rows.collect()["user"].to_list() == expected


def test_unknown_columns_are_named_with_those_there_are(write, tmp_path, scratch):
    path = write("log.csv", "uid,sku,at\n1,2,3\n")
    with pytest.raises(
        DataError, match=r"log.csv has no column 'user' \(--user\), 'time' \(--time\); it has 'uid', 'sku'"
    ):
        read_log([path], LogColumns(item="sku"), scratch)
    pl.DataFrame({"uid": [1]}).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(
        DataError, match=r"log.parquet has no column 'user' \(--user\), 'item' \(--item\), .*; it has 'uid'"
    ):
        read_log([tmp_path / "log.parquet"], LogColumns(), scratch)


@pytest.mark.parametrize("content", ["\n", gzip.compress(b"", mtime=0)])
def test_a_file_without_header_is_refused(write, scratch, content):
    with pytest.raises(DataError, match="has no header; expected a first line that names the columns"):
        read_log([write("log.csv", content)], LogColumns(), scratch)


@pytest.mark.parametrize("content", [HEADER, HEADER.strip()])
def test_a_log_of_a_header_alone_is_empty(write, scratch, content):
    with pytest.raises(DataError, match="the log is empty: 0 rows were read"):
        read_log([write("log.csv", content)], LogColumns(), scratch)


def test_two_columns_of_one_name_are_refused(write, scratch):
    with pytest.raises(DataError, match="has column 'item' twice; give each column its own name"):
        read_log([write("log.csv", "user,item,item,time\n1,2,3,4\n")], LogColumns(), scratch)


@pytest.mark.parametrize("separator", ["x", ";x", '"', "\n"])
def test_refuses_a_separator_that_can_not_separate(write, scratch, separator):
    with pytest.raises(ConfigError, match=r"separator is .*; expected characters that are no letters"):
        read_log([write("log.csv", HEADER)], LogColumns(), scratch, text=TextFormat(separator))


@pytest.mark.parametrize("separator", ["\t", "|", "^", "]", "\\", "-", " ", "§", "::", "||", "\x01"])
def test_any_other_separator(write, scratch, separator):
    text = 'user,"item",time\n"1",2,3\n4,5,6\n'.replace(",", separator)
    log = read_log([write("log.tsv", text)], LogColumns(), scratch, text=TextFormat(separator))
    assert rows_of(log, "user", "item") == [(1, 2), (4, 5)]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("item", "column 'item' of .* has type Boolean; expected whole numbers or text"),
        ("time", "column 'time' has type Boolean; expected numbers, timestamps or text as times"),
        ("user", "column 'user' of .* has type Boolean; expected whole numbers or text"),
    ],
)
def test_refuses_a_parquet_column_of_another_type(tmp_path, scratch, column, message):
    frame = pl.DataFrame({"user": [1], "item": [2], "time": [3]}).with_columns(pl.lit(True).alias(column))
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message):
        read_log([tmp_path / "log.parquet"], LogColumns(), scratch)


def test_refuses_a_damaged_parquet_file(tmp_path, scratch):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": [1], "item": [2], "time": [3]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"can't be read as Parquet .*; expected a whole Parquet file"):
        read_log([path], LogColumns(), scratch)


LOG = HEADER + "1,5,1\n2,5,2\n3,5,3\n"


def test_profiles_become_codes_by_sorted_value(write, scratch):
    users = write("users.csv", "id,town,age\n2,Rome,\n1,Oslo,65+\n9,Bonn,19-24\n")
    log = read_log([write("log.csv", LOG)], LogColumns(), scratch, profile=ProfileTable(users, "id"))
    assert log.profiles is not None
    assert log.profiles.fields == (
        {"name": "town", "kind": "category", "values": ["Bonn", "Oslo", "Rome"]},
        {"name": "age", "kind": "category", "values": ["19-24", "65+"]},
    )
    assert log.profiles.codes.sort("user").rows() == [(1, 2, 2), (2, 3, 0), (9, 1, 1)]


def test_profile_fields_can_be_chosen_and_have_no_value(write, tmp_path, scratch):
    users = tmp_path / "users.parquet"
    pl.DataFrame({"user": [1, 2], "town": ["a", "b"], "none": ["", None]}).write_parquet(users)
    table = ProfileTable(users, fields=("none",))
    log = read_log([write("log.csv", LOG.replace("1,5,1", "u1,5,1"))], LogColumns(), scratch, profile=table)
    assert log.profiles is not None
    assert log.profiles.fields == ({"name": "none", "kind": "category", "values": []},)
    assert log.profiles.codes.rows() == [("1", 0), ("2", 0)]


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ("user,town\n1,a\n1,b\n", "has several rows for user 1; expected one row per user"),
        ("user,town\n7,a\n8,b\n", "none of the 2 users of .* is in the log; check its column 'user'"),
        ("user,town\nx,a\n", "none of the 0 users of .* is in the log"),
        ("user,town\n", "has no rows; expected one row per user"),
        ("user,town\n1,a\n2\n", r"users.csv:3: wrong number of columns; correct the line"),
        ("uid,town\n1,a\n", r"has no column 'user' \(--profile-user\); it has 'uid', 'town'"),
    ],
)
def test_refuses_a_profile_table_that_does_not_fit(write, scratch, users, message):
    with pytest.raises(DataError, match=message):
        read_log([write("log.csv", LOG)], LogColumns(), scratch, profile=ProfileTable(write("users.csv", users)))
