"""`nann prepare log --append`: the log as it was and what happened since."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from nann.cli.prepare import app
from nann.errors import ConfigError, DataError
from nann.histories import FileHistories
from nann.training.data.prepared import PreparedData

HEADER = "uid;sku;at;kind\n"


def run(*arguments):
    result = CliRunner().invoke(app, ["log", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def rows(users, items, start):
    return [
        (user, item, start + place, f"c{item % 3}")
        for place, (user, item) in enumerate((u, i) for u in users for i in items)
    ]


def text(rows):
    return HEADER + "".join(";".join(map(str, row)) + "\n" for row in rows)


COLUMNS = ["--user", "uid", "--item", "sku", "--time", "at", "--category", "kind"]
PROTOCOL = ["--protocol", "leave-one-out", "--min-behaviors", 3, "--validation-users", 1, "--test-users", "all"]
MONDAY = rows(range(1, 9), (20, 40, 60), 1_000) + rows([77], (20, 40), 2_000)
TUESDAY = rows([1, 2, 77, 100], (30, 40, 10), 3_000)


@pytest.fixture
def monday(write, tmp_path):
    out = tmp_path / "out"
    run(write("monday.csv", text(MONDAY)), *COLUMNS, *PROTOCOL, "--out", out, "--name", "shop")
    return out


def manifest_of(out):
    return json.loads((out / "manifest.json").read_text())


def stored(out):
    """Each user's items in the data set's store of histories."""
    return {
        int(user): [int(item) for _, item in events]
        for user, events in FileHistories(out / "histories").events().each()
    }


def histories(data):
    """Each user's items, by the users' own ids."""
    items = data.item_ids[data.behavior_items]
    return {
        user: items[first:end].tolist()
        for user, first, end in zip(data.user_ids, data.user_first, data.user_end, strict=True)
    }


def test_appending_is_preparing_everything_with_the_old_numbers(write, tmp_path):
    monday, protocol = tmp_path / "out", [*PROTOCOL[:-4], "--validation-users", 0, "--test-users", "all"]
    run(write("monday.csv", text(MONDAY)), *COLUMNS, *protocol, "--out", monday)
    before = pl.read_parquet(monday / "items.parquet")["item_id"].to_list()
    output = run(write("tuesday.csv", text(TUESDAY)), "--append", "--out", monday)
    rows_of_items = pl.read_parquet(monday / "items.parquet")["item_id"].to_list()
    assert (before, rows_of_items) == ([20, 40, 60], [20, 40, 60, 10, 30])
    data = PreparedData.load(monday)
    assert data.item_ids.tolist() == [10, 20, 30, 40, 60]
    assert data.item_rows.tolist() == [3, 0, 4, 1, 2]
    assert data.item_ids[data.item_rows < 3].tolist() == before
    counts = manifest_of(monday)["counts"]
    assert (counts["appended_items"], counts["appended_users"]) == (2, 2)  # user 77 had too few before
    assert "appended: new items" in output

    whole = tmp_path / "whole"
    run(write("both.csv", text(MONDAY + TUESDAY)), *COLUMNS, *protocol, "--out", whole)
    together = PreparedData.load(whole)
    assert histories(data) == histories(together)
    assert stored(monday) == stored(whole)
    assert histories(data).items() <= stored(monday).items()
    assert data.identity == together.identity
    np.testing.assert_array_equal(data.user_targets["test"], together.user_targets["test"])
    np.testing.assert_array_equal(data.train_counts, together.train_counts)
    assert pl.read_parquet(monday / "attributes.parquet")["category"].to_list() == ["c2", "c1", "c0", "c1", "c0"]
    assert data.attributes["category"].to_list() == together.attributes["category"].to_list()
    assert manifest_of(monday)["rows"]["read"] == len(MONDAY) + len(TUESDAY)
    assert [name.rsplit("/")[-1] for name in manifest_of(monday)["sources"]] == ["monday.csv", "tuesday.csv"]


def test_appending_twice_numbers_the_items_of_each_day_after_the_others(write, monday):
    run(write("tuesday.csv", text(TUESDAY)), "--append", "--out", monday)
    run(write("wednesday.csv", text(rows([1], (5, 25), 5_000))), "--append", "--out", monday)
    assert pl.read_parquet(monday / "items.parquet")["item_id"].to_list() == [20, 40, 60, 10, 30, 5, 25]
    assert histories(PreparedData.load(monday))[1] == [20, 40, 60, 30, 40, 10, 5, 25] == stored(monday)[1]


def test_older_rows_and_those_it_has_are_left_out_and_counted(write, monday):
    newest = max(row[2] for row in MONDAY)
    again = [row for row in MONDAY if row[2] >= newest - 3]
    run(write("b.csv", text([*again, (5, 99, newest, "c0"), *TUESDAY])), "--append", "--out", monday)
    counts = manifest_of(monday)["counts"]
    assert (counts["older_rows"], counts["known_rows"]) == (len(again) - 1, 1)
    assert histories(PreparedData.load(monday))[5] == [20, 40, 60, 99]


def test_a_log_with_nothing_newer_changes_nothing(write, monday):
    before = {path: path.read_bytes() for path in monday.rglob("*") if path.is_file()}
    with pytest.raises(
        DataError, match=r"none of the 26 rows is newer than .* UTC: 25 are older and 1 are in it; nothing is"
    ):
        run(write("again.csv", text(MONDAY)), "--append", "--out", monday)
    with pytest.raises(DataError, match=r"has no column 'uid' \(--user\)"):
        run(write("other.csv", "user,item,at,kind\n1,2,9999,c\n"), "--append", "--out", monday)
    assert {path: path.read_bytes() for path in monday.rglob("*") if path.is_file()} == before


def test_text_items_can_not_join_numbers_and_numbers_join_text(write, tmp_path, monday):
    with pytest.raises(
        DataError, match=r"item ids are numbers, and the log's are text: 'sku-1' \(t.csv:2\).*--item-ids text"
    ):
        run(write("t.csv", text([(1, "sku-1", 9_000, "c")])), "--append", "--out", monday)
    out = tmp_path / "texts"
    run(
        write("a.csv", text([(f"u{u}", f"0{i}", i, "c") for u in range(4) for i in range(1, 5)])),
        *COLUMNS,
        *PROTOCOL,
        "--out",
        out,
    )
    run(write("b.csv", text([(7, item, 50 + item, "c") for item in (3, 11, 12)])), "--append", "--out", out)
    data = PreparedData.load(out)
    assert histories(data)["7"] == [b"3", b"11", b"12"]
    assert data.item_ids.tolist() == sorted(data.item_ids.tolist())


def test_without_times_all_rows_follow(write, tmp_path):
    out, log = tmp_path / "out", "user,item\n" + "".join(f"{u},{i}\n" for u in range(4) for i in range(1, 5))
    run(write("a.csv", log), "--time", "none", *PROTOCOL, "--out", out)
    run(write("b.csv", "user,item\n1,2\n1,9\n"), "--append", "--out", out)
    assert histories(PreparedData.load(out))[1] == [1, 2, 3, 4, 2, 9]


def test_tables_are_read_again_and_may_be_newer(write, tmp_path):
    out = tmp_path / "out"
    items = write("items.csv", "sku;price\n20;1.5\n40;2.5\n60;3\n10;4\n30;5\n")
    run(
        write("monday.csv", text(MONDAY)),
        *COLUMNS,
        *PROTOCOL,
        "--out",
        out,
        "--items",
        items,
        "--items-numbers",
        "price",
    )
    newer = write("newer.csv", "sku;price\n20;9\n40;2.5\n60;3\n10;4\n30;5\n")
    run(write("tuesday.csv", text(TUESDAY)), "--append", "--out", out, "--items", newer)
    assert PreparedData.load(out).attributes["price"].to_list() == [4, 9, 5, 2.5, 3]
    with pytest.raises(DataError, match=r"was made without --profile; prepare it again with the whole log"):
        run(write("w.csv", text(rows([1], (5,), 9_000))), "--append", "--out", out, "--profile", newer)


def test_options_that_the_data_set_has_are_refused(write, monday):
    day = write("tuesday.csv", text(TUESDAY))
    with pytest.raises(ConfigError, match="--user, --min-behaviors with --append, which reads a log as the data set"):
        run(day, "--append", "--out", monday, "--user", "uid", "--min-behaviors", 3)
    assert "a dry run: nothing is written" in run(day, "--append", "--out", monday, "--dry-run")
    (monday / "events.parquet").unlink()
    with pytest.raises(
        DataError, match=r"has no events.parquet; only data sets of `nann prepare log` can be appended to"
    ):
        run(day, "--append", "--out", monday)


@pytest.mark.parametrize("key", ["user", "item"])
def test_a_day_of_numbers_joins_a_data_set_of_texts_with_tables(write, tmp_path, key):
    def rows(start, odd):
        ids = {"user": [f"{number}" for number in range(1, 30)], "item": [f"{number}" for number in range(1, 30)]}
        ids[key][0] = odd
        return "uid,sku,at,kind\n" + "".join(
            f"{ids['user'][place % 29]},{ids['item'][(place * 7 + place // 29) % 29]},{start + place},c\n"
            for place in range(400)
        )

    items = write(
        "items.csv", "sku,brand\n" + "".join(f"{number},b{number % 3}\n" for number in range(1, 30)) + "x,b1\n"
    )
    users = write("users.csv", "uid,age\n" + "".join(f"{number},a{number % 4}\n" for number in range(1, 30)) + "x,a9\n")
    out = tmp_path / "out"
    tables = ["--items", items, "--items-id", "sku", "--profile", users, "--profile-user", "uid"]
    run(write("monday.csv", rows(1_000, "x")), *COLUMNS, *tables, "--min-behaviors", 3, "--out", out)
    run(write("tuesday.csv", rows(5_000, "1")), "--append", "--out", out)
    data = PreparedData.load(out)
    assert data.manifest["counts"]["behaviors"] == 800
    assert data.manifest["reader"]["found"][f"{key} ids"].startswith("text")
    assert data.item_attributes is not None


@pytest.mark.parametrize(
    "protocol",
    [
        ["--protocol", "paper", "--min-behaviors", 4],
        ["--protocol", "leave-one-out", "--test-users", 30],
        ["--protocol", "leave-one-out", "--validation-users", "all"],
        ["--protocol", "time-split", "--split-time", 1_300],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_no_model_of_before_has_trained_on_what_is_ground_truth_now(write, tmp_path, protocol):
    """Behaviours of a user keep their places, as new ones come last; `nann train --from` goes on from such a model."""
    rng = np.random.default_rng(3)

    def day(users, start):
        return [
            (f"u{user}", int(rng.integers(1, 400)), start + place, "c")
            for place, user in enumerate(rng.permutation(np.repeat(users, rng.integers(2, 9, len(users)))))
        ]

    out = tmp_path / "out"
    run(write("monday.csv", text(day(range(120), 1_000))), *COLUMNS, *protocol, "--out", out)
    before = PreparedData.load(out)
    run(write("tuesday.csv", text(day(range(60, 200), 5_000))), "--append", "--out", out)
    now = PreparedData.load(out)
    trained = dict(zip(before.user_ids, before.user_train_end - before.user_first, strict=True))
    for split, rows in now.user_targets.items():
        users = np.flatnonzero(rows[:, 0] >= 0)
        places = rows[users, 0] - now.user_first[users]
        assert all(place >= trained.get(now.user_ids[int(user)], 0) for user, place in zip(users, places, strict=True))
        assert users.size >= before.target_users(split).size
    assert now.training_groups()[0].size > before.training_groups()[0].size
