"""Files of items, and what `nann items` refuses before it asks a server."""

from __future__ import annotations

import polars as pl
import pytest
from support.cli_commands import refused

from nann.cli.item_files import read_items
from nann.cli.items import _batches, _upserts
from nann.errors import ConfigError
from nann.signature import ATTRIBUTES, CHANGED_ITEM_IDS, ITEM_LIGHT, ITEM_ROW, ITEM_VECTOR

TYPES = {"price": "number", "year": "integer", "tags": "categories", "genre": "category", "available": "flag"}
ROWS = [
    {"id": 7, "price": 3.5, "year": 2020, "tags": ["new", "red"], "genre": "007", "available": True},
    {"id": 8, "price": 1.0, "year": 1, "tags": ["new"], "genre": 'a "b", c', "available": False},
]


def test_all_formats_say_the_same(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f"{row}\n\n" for row in map(_json, ROWS)))
    (tmp_path / "a.csv").write_text(
        'id,price,year,tags,genre,available,none\n7,3.5,2020,new|red,007,true,\n8,1,1,new,"a ""b"", c",False,\n'
    )
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        rows = list(read_items(tmp_path / name, TYPES))
        assert [{**row, "id": int(row["id"])} for row in rows] == ROWS, name


def _json(row):
    import json

    return json.dumps(row)


def test_vectors_of_a_file_become_tensors(tmp_path):
    (tmp_path / "a.csv").write_text(
        "id,row,light,vector,genre\n7,1 2 3,4 5,,x\n8,1 2 4,4 6,,\n6,1 2 3,4 5,9 8,\n9,,,,z\n"
    )
    with_vectors, with_all, without = map(_upserts, _batches(read_items(tmp_path / "a.csv", TYPES)))
    assert with_vectors[CHANGED_ITEM_IDS].tolist() == [["7", "8"]]
    assert with_vectors[ITEM_ROW].tolist() == [[[1, 2, 3], [1, 2, 4]]]
    assert with_vectors[ITEM_LIGHT].tolist() == [[[4, 5], [4, 6]]]
    assert with_vectors[ATTRIBUTES].tolist() == [['{"genre": "x"}', "{}"]]
    assert ITEM_VECTOR not in with_vectors
    assert with_all[ITEM_VECTOR].tolist() == [[[9, 8]]]
    assert (without[CHANGED_ITEM_IDS].tolist(), set(without)) == ([["9"]], {CHANGED_ITEM_IDS, ATTRIBUTES})


WRONG = {
    "a.txt": ("", r"a.txt ends in '.txt'; expected JSON lines \(.jsonl\), CSV with a header"),
    "none.csv": (None, r"none.csv is missing; expected JSON lines"),
    "a.jsonl": ('{"id": 1}\n{', r"line 2 of .*a.jsonl is not JSON: "),
    "b.jsonl": ("[1]\n", r"line 1 of .*b.jsonl is \[1\]; expected a JSON object"),
    "c.jsonl": ('{"id": 1}\n{"price": 3}\n', r"item 2 of .*c.jsonl has the id None; expected a text without spaces"),
    "d.jsonl": ('{"id": 1.5}\n', r"item 1 of .*d.jsonl has the id 1.5; expected"),
    "e.jsonl": ('{"id": true}\n', r"item 1 of .*e.jsonl has the id True; expected"),
    "f.jsonl": ('{"id": " SKU-5"}\n', r"item 1 of .*f.jsonl has the id ' SKU-5'; expected a text without spaces"),
    "g.jsonl": ('{"id": ' + "[" * 100_000, r"line 1 of .*g.jsonl is not JSON: maximum recursion depth"),
    "d.csv": ('id,genre\n7,"abc\n', r"d.csv can't be read: unexpected end of data; expected JSON lines"),
    "a.csv": ("id,price\n7,3,4\n", r"item '7' of .*a.csv has more fields than the header has names"),
    "b.csv": ("id,price\n7,x\n", r"item '7' of .*b.csv: could not convert string to float: 'x'"),
    "c.csv": ("id,available\n7,yes\n", r"item '7' of .*c.csv: available is 'yes'; expected true or false"),
    "a.parquet": ("no parquet", "a.parquet"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named(tmp_path, name):
    text, message = WRONG[name]
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(Exception, match=message) as error:
        list(read_items(tmp_path / name, TYPES))
    assert error.type.__name__ in ("ConfigError", "DataError")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,genre\n7,\xff\n")
    with pytest.raises(ConfigError, match=r"a.csv can't be read: .*; expected JSON lines"):
        list(read_items(tmp_path / "a.csv", TYPES))


BAD_ROWS = {
    "the row of items 7 to 8 are not all of one length, or not numbers": [
        {"id": 7, "row": [1]},
        {"id": 8, "row": [1, 2]},
    ],
    "the light of items 7 to 8 are not all": [{"id": 7, "row": [1], "light": [1]}, {"id": 8, "row": [1]}],
    "can't be sent: Object of type bytes is not JSON": [{"id": 7, "genre": b"x"}],
}


@pytest.mark.parametrize("message", BAD_ROWS)
def test_rows_that_can_not_be_sent(message):
    with pytest.raises(ConfigError, match=message):
        list(map(_upserts, _batches(BAD_ROWS[message])))


def test_a_light_vector_alone_is_not_left_out():
    batches = list(map(_upserts, _batches([{"id": 1, "price": 2.0}, {"id": 2, "light": [1.0, 2.0]}])))
    assert [ITEM_LIGHT in tensors for tensors in batches] == [False, True]


def test_commands_without_items():
    assert "nothing came to add; name a file, or give --item" in refused("items", "add")
    assert "nothing came to remove; give ids, or --file" in refused("items", "remove")
    assert "--item is '{', which is not JSON" in refused("items", "add", "--item", "{")
    assert '--item is \'{"a": 1}\'; expected a JSON object with "id"' in refused("items", "add", "--item", '{"a": 1}')
    assert "no server answers at 127.0.0.1:9" in refused("items", "status", "--url", "127.0.0.1:9")


@pytest.mark.parametrize("given", ["-5", "--fil"])
def test_an_id_that_looks_like_an_option(given):
    words = refused("items", "remove", 7, given)
    assert f"'{given}' is neither an option nor an id: ids that are numbers begin at 1; text ids that begin" in words
