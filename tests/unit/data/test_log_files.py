"""Every file of tests/data/logs, read by `nann prepare log`: the counts of a plain reader, or a refusal that helps."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from support.pages import ROOT
from typer.testing import CliRunner

from nann.cli.prepare import app
from nann.errors import DataError
from nann.training.data.prepared import PreparedData

LOGS = ROOT / "tests/data/logs"
BOOKS = ["--user", "User-ID", "--item", "ISBN", "--time", "none"]
RATINGS = ["--columns", "user,item,rating,time"]
CATEGORY = ["--category", "category"]

BASE = [tuple(row.split(",")) for row in (LOGS / "base.csv").read_text().splitlines()[1:]]
"""User, item, time, category of the log that all others are made of."""


def prepared(tmp_path, name, options=()):
    """The manifest and the data of a file, prepared with no protocol that leaves users out."""
    out = tmp_path / "out"
    arguments = ["log", str(LOGS / name), "--out", str(out), *options]
    least = ["--min-behaviors", "1", "--validation-users", "1", "--test-users", "1"]
    result = CliRunner().invoke(app, [*arguments, *least])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert not out.exists()
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads((out / "manifest.json").read_text()), PreparedData.load(out)


def csv_rows(name, columns, encoding="utf-8", separator=","):
    """Rows of a file as Python's csv module gives them, with a header unless `columns` are all."""
    text = (LOGS / name).read_bytes().decode(encoding)
    return [
        tuple(row[column] for column in columns)
        for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    ]


def base(*, category=True):
    return [row if category else row[:3] for row in BASE]


def users_items(name, user="user", item="item", encoding="utf-8", separator=","):
    return csv_rows(name, (user, item), encoding, separator)


READ = {
    # file, options -> rows of (user, item) or (user, item, time, category), by an independent reader
    ("base.csv", "category"): (CATEGORY, base),
    ("b.csv.zst", ""): (CATEGORY, base),
    ("book_crossing.csv", ""): (BOOKS, lambda: users_items("book_crossing.csv", "User-ID", "ISBN", separator=";")),
    ("category_stray.csv", ""): (
        CATEGORY,
        lambda: csv_rows("category_stray.csv", ("user", "item", "time", "category")),
    ),
    ("decimal.parquet", ""): (CATEGORY, base),
    ("dup_blank_header.csv", ""): ([], lambda: base(category=False)),
    ("duplicates.csv", ""): (CATEGORY, lambda: [row for row in BASE for _ in range(4)]),
    ("fifty_items.csv", ""): ([], lambda: users_items("fifty_items.csv")),
    ("hive", ""): (CATEGORY, base),
    ("spark", ""): (CATEGORY, base),
    ("spark/part-*.parquet", ""): (CATEGORY, base),
    ("item_asin.csv", ""): ([], lambda: users_items("item_asin.csv")),
    ("item_negative.csv", ""): ([], lambda: users_items("item_negative.csv")),
    ("item_uuid.csv", ""): ([], lambda: users_items("item_uuid.csv")),
    ("latin1.csv", ""): (["--encoding", "latin-1"], lambda: users_items("latin1.csv", encoding="latin-1")),
    ("log.jsonl", ""): (CATEGORY, base),
    ("ml100k.tsv", ""): (RATINGS, lambda: base(category=False)),
    ("ml1m.dat", ""): (RATINGS, lambda: base(category=False)),
    ("multiline.csv", ""): ([], lambda: users_items("multiline.csv")),
    ("sessions_list.parquet", ""): ([], lambda: base(category=False)),
    ("time_iso_basic.csv", ""): (CATEGORY, base),
    ("time_pg_offset.csv", ""): (CATEGORY, base),
    ("time_iso_min_zone.csv", ""): (CATEGORY, lambda: users_items("time_iso_min_zone.csv")),
    ("user_uint64_hash.parquet", ""): (
        CATEGORY,
        lambda: [
            (str(u), str(i))
            for u, i in pl.read_parquet(LOGS / "user_uint64_hash.parquet").select("user", "item").rows()
        ],
    ),
}


@pytest.mark.parametrize("case", READ, ids=lambda case: case[0])
def test_prepared_counts_are_those_of_the_file(tmp_path, case):
    options, rows_of = READ[case]
    rows = rows_of()
    manifest, data = prepared(tmp_path, case[0], options)
    counts = manifest["counts"]
    assert manifest["rows"]["bad"] == manifest["rows"]["cut_last_lines"] == 0
    assert manifest["rows"]["read"] == counts["behaviors"] == len(rows)
    assert counts["users"] == len({row[0] for row in rows})
    assert sorted(map(as_text, data.item_ids)) == sorted({row[1] for row in rows})
    assert Counter(map(as_text, data.item_ids[data.behavior_items])) == Counter(row[1] for row in rows)
    per_user = Counter(row[0] for row in rows)
    assert dict(zip(data.user_ids.cast(pl.String), data.user_end - data.user_first, strict=True)) == per_user
    # Each user's items are in the order of the file, which is that of time.
    of_user = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row[2]) if len(row) > 2 else 0):
        of_user[row[0]].append(row[1])
    for user, first, end in zip(data.user_ids.cast(pl.String), data.user_first, data.user_end, strict=True):
        assert list(map(as_text, data.item_ids[data.behavior_items[first:end]])) == of_user[user]
    if len(rows[0]) == 4:
        check_categories(tmp_path, data, rows, counts)


def as_text(item):
    return item.decode() if isinstance(item, bytes) else str(item)


def check_categories(tmp_path, data, rows, counts):
    """Each item has its most frequent category, and those that then have no item are counted."""
    given = defaultdict(Counter)
    for _, item, _, category in rows:
        given[item][category] += 1
    labels = pl.read_parquet(tmp_path / "out/categories.parquet")["label"].to_list()
    for item, code in zip(map(as_text, data.item_ids), data.item_categories, strict=True):
        assert given[item][labels[code]] == max(given[item].values())
    in_log = {category for of_item in given.values() for category in of_item}
    assert counts["categories"] + counts["categories_left_out"] == len(in_log)
    assert counts["items_of_several_categories"] == sum(len(of_item) > 1 for of_item in given.values())


def test_times_of_databases_are_those_of_the_base(tmp_path):
    for name in ("time_iso_basic.csv", "time_pg_offset.csv", "sessions_list.parquet", "b.csv.zst"):
        prepared(tmp_path, name)
        times = pl.read_parquet(tmp_path / "out/events.parquet")["time"]
        assert (times // 1_000_000).to_list() == [int(row[2]) for row in BASE], name


def test_a_column_of_the_folders_can_be_the_time(tmp_path):
    manifest, _ = prepared(tmp_path, "hive", ["--time", "day"])
    assert manifest["reader"]["found"]["columns of folders"] == "day"
    assert manifest["reader"]["found"]["time"].startswith("ISO 8601 text, UTC where no zone is given, from 2019-10-01")


def test_stray_categories_are_said(tmp_path):
    manifest, _ = prepared(tmp_path, "category_stray.csv", CATEGORY)
    (said,) = manifest["warnings"]
    assert said.startswith("300 rows give 300 items another category than most of their rows do")
    assert said.endswith("the newest; 1 of the log's categories have no item then")


def test_values_and_repeats_are_left_out_and_counted(tmp_path):
    ratings = csv_rows("book_crossing.csv", ("Book-Rating",), separator=";")
    manifest, _ = prepared(tmp_path, "book_crossing.csv", [*BOOKS, "--value-column", "Book-Rating", "--min-value", "5"])
    assert manifest["rows"]["filtered"] == sum(int(rating) < 5 for (rating,) in ratings)
    manifest, _ = prepared(tmp_path, "duplicates.csv", ["--merge-repeats"])
    counts = manifest["counts"]
    assert counts["behaviors"] + counts["merged_repeats"] == 12_000
    by_user = defaultdict(list)
    for user, item, _, _ in BASE:
        by_user[user].append(item)
    runs = sum(1 + sum(a != b for a, b in pairwise(items)) for items in by_user.values())
    assert counts["behaviors"] == runs


def test_what_was_found_is_printed_and_in_the_manifest(tmp_path):
    result = CliRunner().invoke(
        app, ["log", str(LOGS / "item_asin.csv"), "--out", str(tmp_path / "out"), "--test-users", "1"]
    )
    found = json.loads((tmp_path / "out/manifest.json").read_text())["reader"]["found"]
    assert found == {
        "files": "1 CSV with ',' between the fields, UTF-8",
        "time": "seconds since 1970, from 2019-10-01 00:00:00 to 2019-10-02 06:49:23 in the first 3,000 rows",
        "item ids": "text: 'B000000256' (item_asin.csv:2) is no plain whole number from 1 to 2^63 - 1",
        "user ids": "numbers",
    }
    for what, how in found.items():
        assert f"{what}: {how}" in result.output


REFUSED = {
    ("latin1.csv", ()): r"3,000 of 3,000 rows are bad.*damaged text, or in another encoding.*latin1.csv:2 .*--encoding",
    ("time_mixed_s_ms.csv", ()): r"1,500 time .* is a number of milliseconds; expected seconds, as 1569888000 is "
    r"\(time_mixed_s_ms.csv:2\). First: time_mixed_s_ms.csv:3 \('1569888037000'\).* in the wrong way: write all times "
    r"in one unit, or as text such as 2024-01-31T12:30:00Z$",
    (
        "item_uuid.csv",
        ("--item-ids", "number"),
    ): r"not a whole number from 1 to 2\^63 - 1. First: item_uuid.csv:2 \('0000",
    ("ml100k.tsv", ()): r"has no column 'user' \(--user\).*it has '1', '256', '5'.*without a header with --columns",
    ("ml100k.tsv", ("--columns", "user,item,time")): r"names 3 columns, and the first line .* 4 with '\\t'",
    ("ml1m.dat", ("--separator", ",", *RATINGS)): r"names 4 columns, .*: 1 with ','. Name each column",
    (
        "base.csv",
        ("--profile", str(LOGS / "profile_list.parquet")),
    ): r"column 'signup' .* has type Datetime.*--profile-fields",
    ("one_item.csv", ()): r"the log has one item; expected at least 2.*--item",
    ("nothing*.csv", ()): r"nothing\*.csv does not exist; give the path of the log's file, its folder or a pattern",
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: " ".join([case[0], *case[1][:1]]))
def test_refusals_help_and_leave_nothing(tmp_path, case):
    with pytest.raises(DataError, match=REFUSED[case]):
        prepared(tmp_path, case[0], case[1])
    assert list(tmp_path.iterdir()) == []


def test_profiles_beside_a_log(tmp_path):
    for name, options in (("profile.csv", []), ("profile_list.parquet", ["--profile-fields", "age,sex"])):
        manifest, data = prepared(tmp_path, "base.csv", ["--profile", str(LOGS / name), *options])
        assert [field["name"] for field in manifest["profile_fields"]] == ["age", "sex"]
        assert data.user_profiles.min() == 1


def test_every_file_is_in_a_table():
    named = {name for name, _ in (*READ, *REFUSED)} | {"profile.csv", "profile_list.parquet"}
    assert {path.name for path in LOGS.iterdir()} <= {Path(name).parts[0] for name in named}
