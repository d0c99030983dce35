"""Which rows of a log are kept, which are bad, and what is said of them."""

from __future__ import annotations

import polars as pl
import pytest

from nann.errors import ConfigError, DataError
from nann.training.data.canonical_rows import LogColumns, LogRules
from nann.training.data.csv_rows import TextFormat
from nann.training.data.custom_log import read_log
from nann.training.data.item_table import ItemTable

HEADER = "user,item,time\n"


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
