from __future__ import annotations

import gzip

import pytest

from nann.errors import DataError
from nann.training.data import sources
from nann.training.data.files import is_parquet
from nann.training.data.sources import text_batches


def read_all(path, batch_bytes):
    batches = list(text_batches(path, batch_bytes))
    rows = [row for batch in batches for row in batch.lines.rows()]
    return rows, [batch.unterminated for batch in batches]


@pytest.mark.parametrize("batch_bytes", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lines_and_their_numbers_do_not_depend_on_the_block(write, batch_bytes, pack):
    path = write("log.csv.gz" if pack is gzip.compress else "log.csv", pack("a,b\r\n\nçé\n\n\nlast".encode()))
    rows, unterminated = read_all(path, batch_bytes)
    assert rows == [("a,b", 1), ("çé", 3), ("last", 6)]
    assert unterminated[-1]
    assert not any(unterminated[:-1])


def test_a_terminated_file_has_no_unterminated_line(write):
    assert read_all(write("log.csv", "a\nb\n"), 100) == ([("a", 1), ("b", 2)], [False])


def test_byte_order_mark_and_wrong_bytes(write):
    rows, _ = read_all(write("log.csv", b"\xef\xbb\xbf1,2\n\xff,3\n"), 100)
    assert rows == [("1,2", 1), ("\ufffd,3", 2)]


def test_gzip_is_known_by_its_content(write):
    assert read_all(write("log.txt", gzip.compress(b"a\n")), 100)[0] == [("a", 1)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "is empty; expected at least one row"),
        ("a.csv.gz", b"1,2\n", "is named .gz and its content is not gzip"),
        ("a.csv", b"PK\x03\x04....", "is a zip archive; expected plain text, gzip, bzip2, xz or zstd: unzip it first"),
        ("a.csv", b"PAR1....", "is Parquet; expected text"),
        ("a.csv", "1,2\n".encode("utf-16"), "begins like UTF-16 and not like UTF-8; read it with --encoding utf-16"),
        ("a.csv", b"1,\x002\n", "is binary; expected text in UTF-8"),
        ("a.csv.gz", gzip.compress(bytes(range(1, 255)) * 99, mtime=0)[:-20], "is a damaged gzip file"),
        ("a.csv.gz", gzip.compress(b"1,2\n", mtime=0) + b"junk", "is a damaged gzip file"),
    ],
)
def test_refuses_what_is_no_text(write, name, content, message):
    with pytest.raises(DataError, match=message):
        list(text_batches(write(name, content)))


def test_refuses_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="does not exist; give the path"):
        list(text_batches(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="is a folder; expected a file"):
        list(text_batches(tmp_path))


def test_refuses_a_file_that_is_one_endless_line(write, monkeypatch):
    monkeypatch.setattr(sources, "_MAX_LINE_BYTES", 50)
    with pytest.raises(DataError, match=r"log.csv:2 is longer than .*expected one row per line"):
        list(text_batches(write("log.csv", "short\n" + "x" * 99), 10))


def test_parquet_by_name_only_is_refused(write):
    assert not is_parquet(write("a.csv", "1,2\n"))
    with pytest.raises(DataError, match=r"is named .parquet and its content is not Parquet"):
        is_parquet(write("a.parquet", "1,2\n"))
