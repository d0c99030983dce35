from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from nann.errors import ConfigError, DataError
from nann.training.data.user_behavior import read_user_behavior

TAOBAO = Path(
    os.environ.get("NANN_TAOBAO_DIR") or Path(__file__).resolve().parents[3].parent / "shared" / "data" / "taobao"
)
GOOD = "1,10,100,pv,1511544070\n"


def read(path, scratch, **options):
    log = read_user_behavior([path], scratch, **options)
    return log.rows.collect().rows(), log.counts


@pytest.mark.parametrize("batch_bytes", [1, 30, 1 << 20])
@pytest.mark.parametrize("packed", [True, False])
def test_reads_the_five_columns(write, scratch, packed, batch_bytes):
    text = b"1,10,100,pv,1511544070\n1,11,101,buy,1511544071\r\n2,10,100,fav,-5\n"
    path = write("u.csv.gz" if packed else "u.csv", gzip.compress(text) if packed else text)
    log = read_user_behavior([path], scratch, batch_bytes=batch_bytes)
    frame = log.rows.collect()
    assert frame.columns == ["user", "item", "category", "time"]
    assert frame.rows() == [(1, 10, 100, 1511544070), (1, 11, 101, 1511544071), (2, 10, 100, -5)]
    assert (log.counts.read, log.counts.bad, log.counts.cut_last_lines) == (3, 0, 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,10,100,pv", "wrong number of columns"),
        ("1,10,100,pv,1511544070,6", "wrong number of columns"),
        ("1,10,100,pv,1511544070,", "wrong number of columns"),
        ("hello", "wrong number of columns"),
        ("x,10,100,pv,1511544070", "user is not a positive whole number"),
        ("0,10,100,pv,1511544070", "user is not a positive whole number"),
        ("1,-1,100,pv,1511544070", "item is not a positive whole number"),
        ("1,0,100,pv,1511544070", "item is not a positive whole number"),
        ("1,9223372036854775808,100,pv,1511544070", "item is not a positive whole number"),
        ("1,1.5,100,pv,1511544070", "item is not a positive whole number"),
        ("1,10,,pv,1511544070", "category is not a whole number"),
        ("1,10,100,click,1511544070", "unknown behaviour type"),
        ("1,10,100,,1511544070", "unknown behaviour type"),
        ("1,10,100,pv,yesterday", "time is not a whole number"),
        ("1,10,100,pv,", "time is not a whole number"),
    ],
)
def test_counts_each_kind_of_bad_row_with_its_line(write, scratch, line, reason):
    path = write("u.csv", f"{GOOD}\n{line}\n{GOOD}")
    rows, counts = read(path, scratch, max_bad_share=0.5)
    assert len(rows) == 2
    assert (counts.read, counts.bad, counts.bad_by_reason) == (3, 1, {reason: 1})
    assert counts.bad_examples == (f"u.csv:3 ({reason})",)


def test_refuses_above_the_share_and_not_at_it(write, scratch):
    path = write("u.csv", GOOD * 98 + "bad\nworse\n")
    assert len(read(path, scratch, max_bad_share=0.02)[0]) == 98
    message = (
        r"2 of 100 rows are bad \(2.0%; at most 1.0% may be\): 2 wrong number of columns. "
        r"First: u.csv:99; u.csv:100. Correct these rows, or raise .* --max-bad-share"
    )
    with pytest.raises(DataError, match=message):
        read(path, scratch)
    with pytest.raises(ConfigError, match=r"max_bad_share is 1.5; expected a share from 0 to 1"):
        read(path, scratch, max_bad_share=1.5)


@pytest.mark.parametrize("batch_bytes", [10, 1 << 20])
def test_examples_are_the_first_five_over_all_files(write, scratch, batch_bytes):
    files = [write("a.csv", GOOD + "x\n" * 3), write("b.csv", "y\n" * 3 + GOOD)]
    counts = read_user_behavior(files, scratch, max_bad_share=1, batch_bytes=batch_bytes).counts
    assert counts.bad == 6
    assert [example.split(" ")[0] for example in counts.bad_examples] == [
        "a.csv:2",
        "a.csv:3",
        "a.csv:4",
        "b.csv:1",
        "b.csv:2",
    ]


@pytest.mark.parametrize("batch_bytes", [10, 1 << 20])
@pytest.mark.parametrize("cut", ["1", "1,10,100,pv", "1,10,100,pv,", "1,10,100,pv,15115", "1,10,100,p"])
def test_a_cut_last_line_is_counted_and_never_refused(write, scratch, cut, batch_bytes):
    rows, counts = read(write("u.csv", GOOD * 2 + cut), scratch, max_bad_share=0, batch_bytes=batch_bytes)
    assert len(rows) == 2
    assert (counts.read, counts.bad, counts.cut_last_lines) == (2, 0, 1)


def test_a_whole_last_line_without_line_end_is_kept(write, scratch):
    rows, counts = read(write("u.csv", GOOD + GOOD.strip()), scratch)
    assert (len(rows), counts.cut_last_lines) == (2, 0)
    assert len(read(write("one.csv", GOOD.strip()), scratch)[0]) == 1


def test_keeps_only_the_types_asked_for(write, scratch):
    path = write("u.csv", "1,1,1,pv,1\n1,2,1,cart,2\n1,3,1,fav,3\n1,4,1,buy,4\n")
    log = read_user_behavior([path], scratch, behavior_types=("buy", "cart"))
    assert log.rows.collect()["item"].to_list() == [2, 4]
    assert (log.counts.filtered, log.counts.bad) == (2, 0)
    assert log.settings == {"behavior_types": ["cart", "buy"]}
    with pytest.raises(ConfigError, match=r"behaviour types \['view'\]; expected some of pv, cart, fav, buy"):
        read_user_behavior([path], scratch, behavior_types=("view",))
    with pytest.raises(ConfigError, match="behaviour types none"):
        read_user_behavior([path], scratch, behavior_types=())


def test_refuses_a_log_without_rows(write, scratch):
    path = write("u.csv", "1,1,1,pv,1\n")
    with pytest.raises(DataError, match="the log is empty: 1 rows were read, 0 of them are bad and 1 of another"):
        read_user_behavior([path], scratch, behavior_types=("buy",))
    for content in ("\n\n", gzip.compress(b"")):
        with pytest.raises(DataError, match="the log is empty: 0 rows were read"):
            read_user_behavior([write("none.csv", content)], scratch)


@pytest.mark.skipif(not TAOBAO.is_dir(), reason="no rows of UserBehavior on this machine (NANN_TAOBAO_DIR)")
@pytest.mark.parametrize(
    ("name", "rows", "users", "items", "cut"),
    [
        ("UserBehavior_head_84k.csv.gz", 84_475, 815, 55_368, 1),
        ("UserBehavior_2h_slice_110k.csv.gz", 110_300, 66_454, 84_793, 0),
        ("UserBehavior_tail_10k.csv.gz", 10_000, 114, 7_623, 0),
    ],
)
def test_real_rows(scratch, name, rows, users, items, cut):
    log = read_user_behavior([TAOBAO / name], scratch, max_bad_share=0, batch_bytes=300_000)
    frame = log.rows.collect()
    assert (log.counts.read, log.counts.bad, log.counts.cut_last_lines) == (rows, 0, cut)
    assert (frame.height, frame["user"].n_unique(), frame["item"].n_unique()) == (rows, users, items)
