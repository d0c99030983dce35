"""Text files in batches of lines, gzip or plain, and checks of a file's format.

Lines are split here and not by a CSV reader. So line numbers are those of the file, a line with a wrong number of
columns is one bad row and never shifts its neighbours, a cut last line is recognised, and memory does not grow with the
file. A batch is one string that polars splits, without a Python object per line.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl

from nann.errors import DataError

BATCH_BYTES = 64 << 20
"""Text per batch; about 2 million rows of UserBehavior."""

BATCH_ROWS = 2_000_000
"""Rows of a Parquet file per batch."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"
_PARQUET_MAGIC = b"PAR1"
_MAX_LINE_BYTES = 16 << 20


@dataclass(frozen=True)
class TextBatch:
    """Some lines of a file.

    Attributes:
        lines: columns `text` (String, without line end) and `number` (Int64, 1-based line of the file), without blank
            lines.
        unterminated: the batch is the file's last line, without a line end: it may be cut.
    """

    lines: pl.DataFrame
    unterminated: bool


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a file: name the files in it")
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the path of the log's file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; expected a log with at least one row")


def is_parquet(path: Path) -> bool:
    """Whether the file is Parquet, by its content.

    Raises:
        DataError: if it is missing, empty or a folder, or is named `.parquet` and is not Parquet.
    """
    _check_file(path)
    found = _head(path, 4) == _PARQUET_MAGIC
    if path.suffix == ".parquet" and not found:
        raise DataError(
            f"{path} is named .parquet and its content is not Parquet; expected a Parquet file: write it again"
        )
    return found


def text_batches(path: Path, batch_bytes: int = BATCH_BYTES) -> Iterator[TextBatch]:
    """The lines of a text file, gzip or plain, as UTF-8 (an invalid byte becomes U+FFFD), `batch_bytes` at a time.

    Raises:
        DataError: if the file is missing, empty, not text, or a damaged gzip.
    """
    number, rest = 1, b""
    with _open_text(path) as stream:
        while block := _read(stream, path, batch_bytes):
            head, newline, tail = block.rpartition(b"\n")
            if not newline:
                rest += tail
                if len(rest) > _MAX_LINE_BYTES:
                    limit = f"{_MAX_LINE_BYTES >> 20} MiB"
                    raise DataError(f"{path}:{number} is longer than {limit}; expected one row per line")
                continue
            lines, number = _lines(rest + head, number)
            rest = tail
            yield TextBatch(lines, unterminated=False)
    if rest:
        yield TextBatch(_lines(rest, number)[0], unterminated=True)


def _lines(text: bytes, first_number: int) -> tuple[pl.DataFrame, int]:
    """The lines of some text, and the number of the line after it."""
    if first_number == 1:
        text = text.removeprefix(b"\xef\xbb\xbf")
    lines = pl.Series("text", [text.decode("utf-8", errors="replace")]).str.split("\n").explode()
    end = first_number + len(lines)
    frame = pl.DataFrame([lines.str.strip_chars_end("\r"), pl.Series("number", np.arange(first_number, end))])
    return frame.filter(pl.col("text").str.len_bytes() > 0), end


def _open_text(path: Path) -> IO[bytes]:
    _check_file(path)
    head = _head(path, 4)
    if head.startswith(_GZIP_MAGIC):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".gz":
        raise DataError(f"{path} is named .gz and its content is not gzip; rename it if it is plain text")
    if head == _ZIP_MAGIC:
        raise DataError(f"{path} is a zip archive; expected plain text or gzip: unzip it first")
    if head == _PARQUET_MAGIC:
        raise DataError(f"{path} is Parquet; expected text: read it with `nann prepare log`")
    return path.open("rb")


def _read(stream: IO[bytes], path: Path, size: int) -> bytes:
    """The next bytes; a truncated archive is an error and not the end, as any part of the log may be missing."""
    try:
        block = stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); expected a whole one: copy it again") from error
    if b"\0" in block[:65536]:
        raise DataError(f"{path} is binary; expected text in UTF-8, one row per line, plain or gzip")
    return block


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(size)
