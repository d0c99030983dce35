from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann import item_sets
from nann.errors import DataError
from nann.training.data.csv_rows import TextFormat
from nann.training.data.item_attributes import ItemAttributes, encode_items
from nann.training.data.item_columns import catalogue_of
from nann.training.data.item_table import ItemTable, ItemValues, read_items
from nann.training.data.protocol import Protocol

ITEMS = pl.Series("item", range(1, 9))

NUMBERS = (TextFormat(), pl.Int64())
"""How tables are read beside a log of CSV files whose items are numbers."""


def encoded(values, items=ITEMS):
    result = encode_items(values, items)
    return ItemAttributes.of(result.lists, result.fields), result


def labels(attributes, item):
    """What the codes of an item stand for, as (field, value, bin number or None for unknown)."""
    found = []
    for code in attributes.codes[attributes.indptr[item] : attributes.indptr[item + 1]]:
        field = [field for field in attributes.fields if field["first_code"] <= code][-1]
        place = int(code) - field["first_code"] - 1
        value = None if place < 0 else place if field["kind"] == "number" else field["values"][place]
        found.append((field["name"], value))
    return found


def table(path, frame):
    frame.write_parquet(path)
    return path


def test_fields_of_every_kind(tmp_path):
    frame = pl.DataFrame(
        {
            "item": [1, 2, 3, 4, 5, 6, 7, 99],
            "brand": ["a", "a", "b", "b", "once", None, " a ", "z"],
            "tags": [["x", "all"], ["x", "y", "all"], ["y", "all"], ["all"], ["all", "rare"], [], None, ["z"]],
            "color": ["red|blue", "blue", "red | blue |", "", "blue", "green", "red", "z"],
            "level": [3, 3, 4, 4, 5, 5, None, 5],
            "price": [1.0, 2.0, 2.0, 3.0, float("nan"), None, 4.0, 9.0],
            "unique": [str(number) for number in range(8)],
        }
    )
    attributes, result = encoded(read_items(ItemTable(table(tmp_path / "items.parquet", frame)), *NUMBERS))
    kinds = {field["name"]: field["kind"] for field in attributes.fields}
    assert kinds == {
        "brand": "category",
        "tags": "categories",
        "color": "categories",
        "level": "category",
        "price": "number",
    }
    assert result.without == ("unique",)
    assert result.outside == 1
    assert labels(attributes, 0) == [
        ("brand", "a"),
        ("tags", "x"),
        ("color", "blue"),
        ("color", "red"),
        ("level", "3"),
        ("price", 0),
    ]
    assert labels(attributes, 2)[1:4] == [("tags", "y"), ("color", "blue"), ("color", "red")]
    assert labels(attributes, 4) == [
        ("brand", None),
        ("tags", None),
        ("color", "blue"),
        ("level", "5"),
        ("price", None),
    ]
    assert labels(attributes, 7) == [(name, None) for name in kinds]
    fields = {field["name"]: field for field in attributes.fields}
    assert fields["tags"]["left_out"] == ["all"]
    assert fields["tags"]["unknown"] == 5
    assert attributes.count == sum(
        1 + len(field.get("values", [*field.get("edges", []), 0])) for field in fields.values()
    )


def test_codes_lie_in_the_ranges_of_their_fields(tmp_path):
    frame = pl.DataFrame({"item": range(1, 9), "kind": list("aabbccdd"), "size": [1.5] * 4 + [2.5] * 4})
    attributes, _ = encoded(read_items(ItemTable(table(tmp_path / "items.parquet", frame)), *NUMBERS))
    assert [(field["name"], field["first_code"]) for field in attributes.fields] == [("kind", 0), ("size", 5)]
    assert attributes.count == 8
    assert attributes.indptr.tolist() == list(range(0, 17, 2))
    assert attributes.codes.reshape(8, 2).T.tolist() == [[1, 1, 2, 2, 3, 3, 4, 4], [6] * 4 + [7] * 4]
    assert (attributes.indptr.dtype, attributes.codes.dtype) == (np.int64, np.int32)


values = st.one_of(st.none(), st.lists(st.sampled_from("abcdefgh"), max_size=4, unique=True))


@settings(max_examples=60)
@given(st.lists(values, min_size=1, max_size=30), st.integers(0, 5))
def test_categories_against_plain_python(rows, more_items):
    items = pl.Series("item", range(10, 10 + len(rows) + more_items))
    frame = pl.DataFrame({"item": items[: len(rows)], "field_0": pl.Series(rows, dtype=pl.List(pl.String))})
    counts = {value: sum(value in (row or []) for row in rows) for value in "abcdefgh"}
    kept = [value for value, count in counts.items() if 2 <= count <= len(items) / 2]
    if not kept:
        with pytest.raises(DataError, match="shop has no attribute that tells items apart"):
            encode_items(ItemValues(frame, ("tags",), "shop"), items)
        return
    attributes, _ = encoded(ItemValues(frame, ("tags",), "shop"), items)
    assert attributes.fields[0]["values"] == kept
    for item, row in enumerate([*rows, *[None] * more_items]):
        known = [("tags", value) for value in sorted(row or []) if value in kept]
        assert labels(attributes, item) == (known or [("tags", None)])
    # The same, sorted by item: ascending and unique.
    parts = np.split(attributes.codes, attributes.indptr[1:-1])
    assert all((np.diff(part) > 0).all() for part in parts)


numbers = st.lists(st.one_of(st.none(), st.floats(-5, 5), st.integers(0, 3).map(float)), min_size=1, max_size=80)


@settings(max_examples=60)
@given(numbers)
def test_numbers_fall_into_bins_between_edges(rows):
    items = pl.Series("item", range(1, len(rows) + 1))
    frame = pl.DataFrame({"item": items, "field_0": pl.Series(rows, dtype=pl.Float64)})
    distinct = {value for value in rows if value is not None}
    if len(distinct) < 2:
        with pytest.raises(DataError, match=r"no attribute that tells items apart; .* and it has 'price'"):
            encode_items(ItemValues(frame, ("price",), "shop"), items)
        return
    attributes, _ = encoded(ItemValues(frame, ("price",), "shop"), items)
    edges = attributes.fields[0]["edges"]
    assert 1 <= len(edges) <= 15
    assert edges == sorted(set(edges) & distinct)
    bins = [None if value is None else sum(edge <= value for edge in edges) for value in rows]
    assert [labels(attributes, item) for item in range(len(rows))] == [[("price", place)] for place in bins]
    assert set(bins) - {None} == set(range(len(edges) + 1)), "no bin is empty"


def test_many_numbers_give_bins_of_about_the_same_size():
    numbers = np.random.default_rng(0).exponential(size=1600)
    items = pl.Series("item", range(1600))
    frame = pl.DataFrame({"item": items, "field_0": numbers})
    attributes, _ = encoded(ItemValues(frame, ("price",), "shop"), items)
    assert np.abs(np.bincount(attributes.codes)[1:] - 100).max() <= 1
    assert attributes.count == 17


def test_a_csv_names_its_numbers_and_its_value_separator(write):
    text = "sku;price;tags;title\n1;1.5;x/y;A\n2; 2 ;x/y|z;A\n3;oops;y;B\n4.0;3;x/z;B\n5;;;\nbad;1;x;A\n"
    path = write("items.csv", text)
    columns = ItemTable(path, "sku", ("price", "tags"), ("price",), "title", "/")
    read = read_items(columns, TextFormat(";"), pl.Int64())
    assert read.fields == ("price", "tags")
    assert read.frame["item"].to_list() == [1, 2, 3, 4, 5]
    assert read.frame["field_0"].to_list() == [1.5, 2.0, None, 3.0, None]
    tags = [["x", "y"], ["x", "y|z"], ["y"], ["x", "z"], []]
    assert [sorted(part) for part in read.frame["field_1"].to_list()] == tags
    assert read.frame["name"].to_list() == ["A", "A", "B", "B", None]
    plain = read_items(ItemTable(path, "sku", ("tags",), value_separator=""), TextFormat(";"), pl.Int64())
    assert plain.frame["field_0"].to_list() == [["x/y"], ["x/y|z"], ["y"], ["x/z"], []]


def test_columns_of_a_text_file_have_the_types_that_parquet_would_have(tmp_path, write):
    columns = {
        "price": ["1.5", "", " 2 ", "1e3"],
        "year": ["1999", "2024", "", "-1"],
        "on": ["true", "False", "", "TRUE"],
        "code": ["007", "12", "", "1"],
        "large": [str(2**63), "1", "", "2"],
        "mixed": ["1.5", "2", "", "n/a"],
        "tags": ["1|2", "3", "", "4"],
        "none": ["", "", "", ""],
    }
    rows = [",".join(row) for row in zip("1234", *columns.values(), strict=True)]
    text = read_items(ItemTable(write("items.csv", "\n".join([",".join(("item", *columns)), *rows]) + "\n")), *NUMBERS)
    frame = pl.DataFrame(
        {
            **{"item": [1, 2, 3, 4], **columns},
            **{"price": [1.5, None, 2, 1000], "year": [1999, 2024, None, -1], "on": [True, False, None, True]},
        }
    )
    typed = read_items(ItemTable(table(tmp_path / "items.parquet", frame)), *NUMBERS)
    lists = pl.col(pl.List(pl.String)).list.sort()
    assert text.frame.with_columns(lists).equals(typed.frame.with_columns(lists))
    assert [name for name in text.frame.columns if name.startswith("exact")] == ["exact_1", "exact_2"]
    assert text.frame["exact_2"].to_list() == [True, False, None, True]


def test_texts_of_parquet_stay_texts_and_numbers_among_them_are_pointed_out(tmp_path):
    frame = pl.DataFrame({"item": [1, 2], "price": ["1.5", "2"], "code": ["7", "12"]})
    read = read_items(ItemTable(table(tmp_path / "items.parquet", frame)), *NUMBERS)
    assert read.frame.select("field_0", "field_1").to_dict(as_series=False) == {
        "field_0": [["1.5"], ["2"]],
        "field_1": [["7"], ["12"]],
    }
    (said,) = read.conversions
    assert said.endswith("is text, though all its values are numbers; --items-numbers price reads it as numbers")


def test_types_of_columns(tmp_path):
    frame = pl.DataFrame(
        {
            "item": [1, 2],
            "bool": [True, None],
            "category": pl.Series(["a", "b"], dtype=pl.Categorical),
            "ints": [[2, 1, 1], None],
            "decimal": pl.Series(["1.5", None]).cast(pl.Decimal(10, 2)),
            "year": [1999, 2024],
        }
    )
    path = table(tmp_path / "items.parquet", frame)
    read = read_items(ItemTable(path, numbers=("year",)), *NUMBERS)
    fields = {name: read.frame[f"field_{i}"].to_list() for i, name in enumerate(read.fields)}
    fields["ints"] = [sorted(part) for part in fields["ints"]]
    assert fields == {
        "bool": [["true"], []],
        "category": [["a"], ["b"]],
        "ints": [["1", "2"], []],
        "decimal": [1.5, None],
        "year": [1999.0, 2024.0],
    }


def test_tables_that_are_refused(tmp_path, write):
    good = pl.DataFrame({"item": [1, 2, 3, 4], "brand": list("aabb")})

    def read(frame, **options):
        return read_items(ItemTable(table(tmp_path / "items.parquet", frame), **options), *NUMBERS)

    with pytest.raises(DataError, match=r"items\.parquet has several rows for item 2; expected one row per item"):
        read(pl.concat([good, good[1:2]]))
    with pytest.raises(DataError, match=r"items\.parquet has no column 'sku' \(--items-id\); it has 'item', 'brand'"):
        read(good, item="sku")
    with pytest.raises(DataError, match=r"items\.parquet has no column 'price' \(--items-numbers\), 'color'"):
        read(good, fields=("color",), numbers=("price",))
    with pytest.raises(DataError, match=r"items\.parquet has no rows; expected one row per item"):
        read(good.clear())
    with pytest.raises(DataError, match=r"items\.csv:3: wrong number of columns; correct the line"):
        read_items(ItemTable(write("items.csv", "item,brand\n1,a\n2\n")), *NUMBERS)
    with pytest.raises(
        DataError, match=r"column 'brand' of .* has no number, but 'a'; leave it out of --items-numbers"
    ):
        read(good, numbers=("brand",))
    dated = good.with_columns(pl.lit(None).cast(pl.Date).alias("day"), pl.struct("item").alias("both"))
    with pytest.raises(DataError, match=r"column 'day' of .* has type Date; expected numbers: leave it out"):
        read(dated.drop("both"), numbers=("day",))
    with pytest.raises(
        DataError, match=r"column 'both' of .* has type Struct.*; expected numbers, text, or lists .*name"
    ):
        read(dated.drop("day"))
    with pytest.raises(DataError, match=r"none of the 4 items of .*items\.parquet is in the log; check its column"):
        encode_items(read(good.with_columns(pl.col("item") + 100)), ITEMS)
    with pytest.raises(DataError, match=r"no attribute that tells items apart; .* and it has only ids"):
        encode_items(read(good.drop("brand")), ITEMS)


def test_attributes_come_through(prepare_csv, tmp_path):
    text = "user,item,time\n" + "".join(f"{user},{item},{item}\n" for user in (1, 2, 3) for item in range(1, 9))
    frame = pl.DataFrame(
        {"item": [8, 7, 1, 2, 99], "brand": ["b", "a", "a", "b", "a"], "label": ["H", "G", "A", None, "?"]}
    )
    path = table(tmp_path / "items.parquet", frame)
    data = prepare_csv(text, Protocol(3, 1, 1), items=ItemTable(path, name="label"))
    attributes = data.item_attributes
    assert [labels(attributes, item)[0][1] for item in range(8)] == ["a", "b", None, None, None, None, "a", "b"]
    assert attributes.count == 3
    assert data.item_names == ["A", "item 2", *[f"item {item}" for item in range(3, 7)], "G", "H"]
    assert data.attributes.to_dict(as_series=False) == {"brand": [["a"], ["b"], None, None, None, None, ["a"], ["b"]]}
    assert data.manifest["counts"]["item_rows_not_in_log"] == 1
    assert data.manifest["reader"]["items"]["path"] == str(path)
    assert prepare_csv(text, Protocol(3, 1, 1)).item_attributes is None


def test_filters_have_the_columns_as_they_are(prepare_csv, tmp_path):
    items = range(1, 6)
    text = "user,item,time,category\n" + "".join(
        f"{user},{item},{item},{item % 2 + 7}\n" for user in (1, 2, 3) for item in items
    )
    frame = pl.DataFrame(
        {
            "item": [5, 1, 2, 3, 99],
            "title": ["e", "a", "b", "c", "?"],  # tells no items apart, so the model leaves it out
            "large": [2**62 + 1, 3, 3, None, 0],
            "on": [True, False, None, True, True],
            "tags": [["x", "y"], [], ["x"], None, ["z"]],
            "price": [1.5, float("nan"), 2.0, None, 0.0],
            "year": [1999, 2000, 2000, 1999, 1],
        }
    )
    path = table(tmp_path / "items.parquet", frame)
    data = prepare_csv(text, Protocol(3, 1, 1), items=ItemTable(path, numbers=("year",)))
    kept = data.attributes.with_columns(pl.col("tags").list.sort())
    assert kept.to_dict(as_series=False) == {
        "title": [["a"], ["b"], ["c"], None, ["e"]],
        "large": [3, 3, None, None, 2**62 + 1],
        "on": [False, None, True, None, True],
        "tags": [[], ["x"], [], None, ["x", "y"]],
        "price": [None, 2.0, None, None, 1.5],
        "year": [2000, 2000, 1999, None, 1999],
        "category": ["8", "7", "8", "7", "8"],
    }
    catalogue = catalogue_of(data.attributes.to_dict(), data.item_count)
    assert {name: column.type for name, column in catalogue.columns.items()} == {
        "title": "category", "large": "integer", "on": "flag", "tags": "categories", "price": "number",
        "year": "integer", "category": "category"}  # fmt: skip
    for filter_, expected in {
        f"large = {2**62 + 1}": [4],
        f"large <= {2**62}": [0, 1],
        "category in (8) and not on": [0],
        'tags = "y" or title = "b"': [1, 4],
    }.items():
        assert item_sets.members(catalogue.compile(filter_)).tolist() == expected
    own = frame.select("item", pl.lit("own").alias("category"), pl.col("title").alias("t"))
    own = own.with_columns(pl.Series("brand", list("aabbc")))
    data = prepare_csv(text, Protocol(3, 1, 1), items=ItemTable(table(path, own)))
    assert data.attributes["category"].to_list() == [["own"], ["own"], ["own"], None, ["own"]]


def test_a_category_of_the_log_is_an_attribute_by_itself(prepare_csv):
    text = "user,item,time,category\n" + "".join(
        f"{user},{item},{item},s{item}\n" for user in (1, 2, 3) for item in (1, 2, 3)
    )
    data = prepare_csv(text, Protocol(3, 1, 1))
    assert data.attributes.to_dict(as_series=False) == {"category": ["s1", "s2", "s3"]}
    assert prepare_csv(text.replace("category", "shelf"), Protocol(3, 1, 1)).attributes is None
