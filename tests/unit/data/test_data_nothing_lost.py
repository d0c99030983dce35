"""What does not come through is counted, and what is prepared adds up to what is in the files."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.pages import ROOT

from nann.errors import ConfigError, DataError
from nann.features import profile_codes
from nann.training.data.canonical_rows import LogColumns
from nann.training.data.custom_log import read_log
from nann.training.data.item_table import ItemTable
from nann.training.data.log_source import ProfileTable
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol

HEADER = "user,item,time\n"


def test_latin_1_users_are_bad_rows_and_never_merged(write, scratch):
    """120 users whose names differ in letters with accents: as UTF-8 all come through, as Latin-1 none is merged."""
    names = [f"{letter}ric{number}" for letter in "éèêë" for number in range(30)]
    text = HEADER + "".join(f"{name},{item},{item}\n" for name in names for item in (1, 2))
    log = read_log([write("log.csv", text)], LogColumns(), scratch)
    assert log.rows.select(pl.col("user").n_unique()).collect().item() == 120
    latin = write("latin.csv", text.encode("latin-1"))
    with pytest.raises(
        DataError, match=r"240 of 240 rows are bad.*240 user \(column 'user'\) is damaged text, or in an.*--encoding"
    ):
        read_log([latin], LogColumns(), scratch)


@pytest.mark.parametrize("key", ["category", "basket"])
def test_other_keys_that_are_not_utf_8_are_bad_rows(write, scratch, key):
    path = write("log.csv", b"user,item,time,key\n1,2,3,ok\n1,2,3,caf\xe9\n")
    log = read_log([path], LogColumns(**{key: "key"}), scratch, max_bad_share=0.5)
    assert log.counts.bad_examples == (
        f"log.csv:3 ({key} (column 'key') is damaged text, or in another encoding: 'caf\ufffd')",
    )


def test_tables_that_are_not_utf_8_are_refused_with_their_line(write, scratch):
    log = write("log.csv", HEADER + "1,5,1\n")
    users = write("users.csv", b"user,town\n1,Oslo\n2,Troms\xf8\n")
    with pytest.raises(DataError, match=r"users.csv:3: damaged text, or in another encoding; correct the line, or see"):
        read_log([log], LogColumns(), scratch, profile=ProfileTable(users))


@pytest.mark.parametrize("kind", [pl.Int8, pl.UInt32, pl.Int64, pl.UInt64])
def test_keys_of_every_whole_number_type_come_through(tmp_path, scratch, kind):
    top = {pl.Int8: 127, pl.UInt32: 2**32 - 1, pl.Int64: 2**63 - 1, pl.UInt64: 2**64 - 1}[kind]
    keys = pl.Series([top, top - 1, 0], dtype=kind)
    pl.DataFrame({"user": keys, "item": [1, 2, 3], "time": [1, 2, 3], "c": keys, "b": keys}).write_parquet(
        tmp_path / "log.parquet"
    )
    log = read_log([tmp_path / "log.parquet"], LogColumns(category="c", basket="b"), scratch)
    rows = log.rows.collect()
    for name in ("user", "category", "basket"):
        assert [int(value) for value in rows[name]] == [top, top - 1, 0]
    assert log.counts.bad == 0


def test_a_category_that_is_half_a_number_is_a_bad_row_and_none_is_no_category(tmp_path, scratch):
    frame = pl.DataFrame(
        {"user": [1, 1, 1, 1], "item": [1, 2, 3, 4], "time": [1, 2, 3, 4], "c": [2.0, 2.5, None, np.nan]}
    )
    frame.write_parquet(tmp_path / "log.parquet")
    log = read_log([tmp_path / "log.parquet"], LogColumns(category="c"), scratch, max_bad_share=0.5)
    assert log.counts.bad_by_reason == {"category (column 'c') is neither a whole number nor text": 1}
    assert log.rows.collect()["category"].to_list() == ["2", None, None]


def test_spaces_around_keys_are_counted(write, prepare_csv):
    data = prepare_csv(
        HEADER + "".join(f"{user},{item},{item}\n" for user in ("a", " b", "b ") for item in (1, 2, 3)),
        Protocol(min_behaviors=1, validation_users=0, test_users=1),
    )
    assert data.user_count == 2
    assert data.manifest["rows"]["trimmed"] == 6
    assert (
        "6 rows have spaces around a user, an item, a category or a basket; the spaces were left out"
        in data.manifest["warnings"]
    )


log_rows = st.lists(
    st.tuples(st.sampled_from(["1", "2", "u3", " u3", "é4", "\udce9", ""]), st.integers(-1, 6), st.integers(0, 9)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=log_rows, merged=st.booleans())
def test_prepared_counts_add_up_to_the_raw_ones(tmp_path_factory, rows, merged):
    """Rows, users and items of the file, counted in plain Python, are those prepared and those counted as left out."""
    folder = tmp_path_factory.mktemp("raw")
    lines = "".join(f"{user},{item},{time}\n" for user, item, time in rows)
    (folder / "log.csv").write_bytes((HEADER + lines + "k,9,1\nk,8,2\nk,7,3\n").encode("utf-8", "surrogateescape"))
    protocol = Protocol(min_behaviors=3, validation_users=0, test_users=0, merge_repeats=merged)
    manifest = prepare(
        lambda scratch: read_log([folder / "log.csv"], LogColumns(), scratch, max_bad_share=1),
        folder / "out",
        protocol,
    )
    good = [(user.strip(), item) for user, item, _ in rows if user not in ("", "\udce9")]
    good += [("k", 9), ("k", 8), ("k", 7)]
    counts, read = manifest["counts"], manifest["rows"]
    assert read["read"] == len(rows) + 3
    assert read["read"] - read["bad"] == len(good)
    assert counts["behaviors"] + counts["dropped_behaviors"] + counts["merged_repeats"] == len(good)
    assert counts["users"] + counts["dropped_users"] == len({user for user, _ in good})
    assert counts["items"] + counts["dropped_items"] == len({item for _, item in good})


def with_profile(write, scratch, users, text, **table):
    log = write("log.csv", HEADER + "".join(f"{user},5,1\n" for user in users))
    return read_log([log], LogColumns(), scratch, profile=ProfileTable(write("users.csv", text), **table))


def test_rows_of_profiles_that_fit_nobody_are_counted(write, scratch):
    log = with_profile(write, scratch, [7, 8], "user,town\n007,a\n7,b\n,c\n9,d\n", fields=("town",))
    (code,) = log.profiles.codes.filter(pl.col("user") == 7)["profile_0"]
    assert log.profiles.fields[0]["values"][code - 1] == "b"  # 007 is not 7
    assert log.profiles.outside == 3
    assert len(log.conversions) == 1
    assert log.conversions[0].startswith("2 rows of ")
    assert log.conversions[0].endswith(
        "users.csv have no user as the log has them in column 'user', the first has '007' (users.csv:2): left out"
    )


def test_float_users_of_a_profile_table_are_whole_numbers(write, tmp_path, scratch):
    pl.DataFrame({"user": [7.0, 8.5], "town": ["a", "b"]}).write_parquet(tmp_path / "users.parquet")
    log = read_log(
        [write("log.csv", HEADER + "7,5,1\n")], LogColumns(), scratch, profile=ProfileTable(tmp_path / "users.parquet")
    )
    assert log.profiles.codes.rows() == [(7, 1)]


def test_numbers_become_bins_that_clients_fill_by_value(write, scratch):
    """Columns of floats and those named are numbers; a client's value falls into the bin of the data set's users."""
    rng = np.random.default_rng(3)
    incomes, ages = rng.lognormal(10, 1, 400).round(2), rng.integers(18, 90, 400)
    rows = "".join(
        f"{user},{income:.2f},{age},{age % 3}\n" for user, (income, age) in enumerate(zip(incomes, ages, strict=True))
    )
    log = with_profile(write, scratch, range(400), "user,income,age,group\n" + rows, numbers=("age",))
    fields, codes = log.profiles.fields, log.profiles.codes.sort("user")
    assert [(field["name"], field["kind"], len(field["values"])) for field in fields] == [
        ("income", "number", 16),
        ("age", "number", 16),
        ("group", "category", 3),
    ]
    sizes = np.bincount(codes["profile_0"].to_numpy(), minlength=17)
    assert sizes[0] == 0
    assert sizes[1:].min() >= 24
    assert sizes[1:].max() <= 26
    asked = [
        {"income": income, "age": int(age), "group": str(age % 3)} for income, age in zip(incomes, ages, strict=True)
    ]
    np.testing.assert_array_equal(profile_codes(fields, asked), codes.select(pl.exclude("user")).to_numpy())
    assert fields[0]["values"][0] == f"below {fields[0]['edges'][0]:.12g}"
    assert not log.conversions


def test_what_is_no_number_is_counted_and_many_categories_are_pointed_out(write, scratch):
    rows = "".join(f"{user},{'?' if user < 4 else user},id-{user}\n" for user in range(1_100))
    log = with_profile(write, scratch, range(1_100), "user,score,code\n" + rows, numbers=("score",))
    first, second = log.conversions
    assert first.startswith("4 values of column 'score' of ")
    assert first.endswith("are no numbers, the first is '?' (users.csv:2): unknown")
    assert "column 'code'" in second
    assert "has 1,100 values, each a category of its own: --profile-numbers reads it as a number" in second
    assert (log.profiles.codes.sort("user")["profile_0"] == 0).to_list() == [user < 4 for user in range(1_100)]


@pytest.mark.parametrize(
    ("frame", "table", "message"),
    [
        (
            {"user": [7], "score": ["good"]},
            {"numbers": ("score",)},
            "has no number, but 'good'; leave it out of --profil",
        ),
        ({"user": [7], "t": [[1, 2]]}, {}, "column 't' of .* has type List.*; expected numbers, text or true or false"),
        ({"user": [True], "t": [1]}, {}, "column 'user' of .* has type Boolean; expected whole numbers or text"),
        (
            {"user": [7], "a": [1]},
            {"fields": ("b",), "numbers": ("c",)},
            r"has no column 'c' \(--profile-numbers\), 'b'",
        ),
    ],
)
def test_profile_columns_that_can_not_be_are_refused(write, tmp_path, scratch, frame, table, message):
    pl.DataFrame(frame).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(DataError, match=message):
        read_log(
            [write("log.csv", HEADER + "7,5,1\n")],
            LogColumns(),
            scratch,
            profile=ProfileTable(tmp_path / "users.parquet", **table),
        )


def test_items_without_an_id_and_values_without_a_number_are_counted(write, scratch):
    log = write("log.csv", HEADER + "".join(f"1,{item},1\n" for item in range(1, 7)))
    text = "item,price\n1,1.5\n2,2\n3,n/a\nx,3\n,4\n4,\n5,5\n6,inf\n"
    read = read_log([log], LogColumns(), scratch, items=ItemTable(write("items.csv", text), numbers=("price",)))
    assert [line.replace(str(scratch.parent) + "/", "") for line in read.conversions] == [
        "2 rows of items.csv have no whole number in column 'item', the first has 'x' (items.csv:5): left out",
        "2 values of column 'price' of items.csv are no numbers, the first is 'n/a' (items.csv:4): unknown",
    ]


def test_a_column_that_one_value_makes_text_is_pointed_out_with_the_option_that_reads_it(write, scratch):
    users = range(40)
    log = write("log.csv", HEADER + "".join(f"{user},{user + 1},1\n" for user in users))
    prices = ["n/a" if user == 7 else f"{user}.5" for user in users]
    sizes = ["XL" if user % 3 else user for user in users]  # as many are text on purpose
    rows = [f"{user + 1},{price},{size}\n" for user, price, size in zip(users, prices, sizes, strict=True)]
    items = ItemTable(write("items.csv", "item,price,size\n" + "".join(rows)))
    rows = [f"{user},{price},{size}\n" for user, price, size in zip(users, prices, sizes, strict=True)]
    profile = ProfileTable(write("users.csv", "user,income,size\n" + "".join(rows)))
    read = read_log([log], LogColumns(), scratch, items=items, profile=profile)
    assert [line.replace(str(scratch.parent) + "/", "") for line in read.conversions] == [
        f"column {name!r} of {file} is text, though 39 of its 40 values are numbers: the first that is none is 'n/a' "
        f"({file}:9); {option} {name} reads it as numbers, and what is none as unknown"
        for name, file, option in (
            ("income", "users.csv", "--profile-numbers"),
            ("price", "items.csv", "--items-numbers"),
        )
    ]


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["1,75", "1.234,5", "12", "-3,0"], "1,75"),
        (["12", "1,234.50", "7,000", "1,000,000"], "1,234.50"),
        (["$3.50", "4 €", "£ 1,000", "5"], "$3.50"),
        (["12.5.2023", "1.2.3", "2023-01-01", "7"], None),
        (["38|39", "40", "a,b", "x"], None),
    ],
)
def test_numbers_in_another_form_are_pointed_out(write, scratch, values, first):
    log = write("log.csv", HEADER + "".join(f"1,{item},1\n" for item in range(1, 5)))
    rows = "".join(f"{item};{value};{'ab'[item % 2]}\n" for item, value in enumerate(values, 1))
    read = read_log([log], LogColumns(), scratch, items=ItemTable(write("items.csv", "item;price;brand\n" + rows)))
    said = [line.partition("items.csv is ")[2] for line in read.conversions]
    line = 1 + values.index(first) + 1 if first else 0
    form = f"text, though its values look like numbers, such as {first!r} (items.csv:{line}); only those written as "
    assert said == ([form + "1234.5 are read as numbers"] if first else [])


def test_spaces_around_the_texts_of_items_and_users_are_counted(write, tmp_path, scratch):
    log = write("log.csv", HEADER + "1,1,1\n1,2,1\n")
    text = "item,brand,tags,size,title\n1, Acme,new | red|, 3 ,Milk \n2,Acme,new|  ,4,Tea\n"
    items = ItemTable(write("items.csv", text), numbers=("size",), name="title")
    profile = ProfileTable(write("users.csv", "user,town\n1, Bonn \n"))
    read = read_log([log], LogColumns(), scratch, items=items, profile=profile)
    assert [line.replace(str(scratch.parent) + "/", "") for line in read.conversions] == [
        "1 values of column 'town' of users.csv have spaces around them; the spaces were left out",
        "1 values of column 'brand' of items.csv have spaces around them; the spaces were left out",
        "2 values of column 'tags' of items.csv have spaces around them; the spaces were left out",
        "1 values of column 'title' of items.csv have spaces around them; the spaces were left out",
    ]
    lists = pl.DataFrame({"item": [1, 2], "tags": [["a ", "b"], [" a"]], "shelves": [[1], [2, 3]]})
    lists.write_parquet(tmp_path / "items.parquet")
    (scratch / "again").mkdir()
    again = read_log([log], LogColumns(), scratch / "again", items=ItemTable(tmp_path / "items.parquet"))
    (line,) = again.conversions
    assert line.startswith("2 values of column 'tags' of ")


def test_a_missing_column_names_its_option(write, scratch):
    log = write("log.csv", "uid,item,ts\n1,2,3\n")
    with pytest.raises(
        DataError, match=r"has no column 'user' \(--user\), 'time' \(--time\); it has 'uid', 'item', 'ts'"
    ):
        read_log([log], LogColumns(), scratch)
    good, items = write("good.csv", HEADER + "1,2,3\n"), write("items.csv", "sku,price\n1,2\n")
    with pytest.raises(DataError, match=r"has no column 'brand' \(--items-fields\), 'item' \(--items-id\)"):
        read_log([good], LogColumns(), scratch, items=ItemTable(items, fields=("brand",)))


def many_users(count):
    return HEADER + "".join(f"{user},{item},{item}\n" for user in range(count) for item in range(1, 5))


def test_all_users_can_be_asked_for(prepare_csv):
    data = prepare_csv(
        many_users(9), Protocol(kind="leave-one-out", min_behaviors=3, validation_users=1, test_users="all")
    )
    assert data.manifest["counts"]["test_users"] == 9
    assert data.manifest["protocol"]["test_users"] == "all"
    with pytest.raises(
        DataError, match=r"9 users have test ground truth .* expected 10: .* or for all of them: --test-us"
    ):
        prepare_csv(many_users(9), Protocol(kind="leave-one-out", min_behaviors=3, validation_users=1, test_users=10))
    with pytest.raises(ConfigError, match="protocol paper with all users to validate or test on; expected a number"):
        Protocol(test_users="all")
    with pytest.raises(ConfigError, match="test_users is many; expected at least 0, or all"):
        Protocol(kind="leave-one-out", test_users="many")


def test_a_full_disk_is_named_and_leaves_no_part(tmp_path, monkeypatch, write):
    log, out = write("log.csv", many_users(9)), tmp_path / "out"
    whole = pl.DataFrame.write_parquet

    def to_full_disk(frame, path):
        return whole(frame, "/dev/full" if path.name == "users.parquet" else path)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", to_full_disk)
    with pytest.raises(OSError, match="No space left on device") as error:
        prepare(lambda scratch: read_log([log], LogColumns(), scratch), out, Protocol(1, 1, 1))
    assert error.value.filename == str(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]


def test_the_folder_is_as_documented(prepare_csv, tmp_path, write):
    """The table in docs/data.md names every file and column that is written."""
    items = ItemTable(write("items.csv", "item,brand\n1,a\n2,a\n3,b\n4,b\n"))
    users = ProfileTable(write("users.csv", "user,town\n1,Oslo\n"))
    prepare_csv(many_users(9), Protocol(1, 1, 1), items=items, profile=users)
    lines = (ROOT / "docs/data.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `") and ".parquet`" in line}
    for path in (tmp_path / "out").glob("*.parquet"):
        for name in pl.read_parquet_schema(path):
            assert f" {name}" in rows[path.name], (path.name, name)
    page = "\n".join(lines)
    for key in json.loads((tmp_path / "out/manifest.json").read_text()):
        assert f"`{key}`" in page, key
    assert PreparedData.load(tmp_path / "out").manifest["profile_unknown_users"] == [8]
