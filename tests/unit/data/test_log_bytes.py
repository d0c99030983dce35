"""The bytes of log files: packed, in any encoding, damaged; and which files of a folder are read."""

from __future__ import annotations

import bz2
import gzip
import lzma
from contextlib import suppress

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from nann.errors import DataError, NannError
from nann.training.data.canonical_rows import LogColumns
from nann.training.data.csv_rows import TextFormat
from nann.training.data.custom_log import read_log
from nann.training.data.files import log_files

HEADER = "user,item,time\n"


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
