"""Text files in batches of lines, with line numbers: packed or plain, in any encoding.

Lines are split here and not by a CSV reader. So line numbers are those of the file, a line with a wrong number of
columns is one bad row and never shifts its neighbours, a cut last line is recognised, and memory does not grow with the
file. A batch is one string that polars splits, without a Python object per line.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from nann.errors import ConfigError, DataError

from .files import byte_blocks

BATCH_BYTES = 64 << 20
"""Text per batch; about 2 million rows of UserBehavior."""

UTF_8 = "utf-8"
_MAX_LINE_BYTES = 16 << 20
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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


def check_encoding(name: str) -> None:
    """Raises ConfigError if this is no encoding of text that Python knows."""
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"encoding is {name!r}; expected one that Python knows, such as utf-8, latin-1, cp1252, utf-16 or gb18030"
        ) from error


def text_batches(
    path: Path, batch_bytes: int = BATCH_BYTES, encoding: str = UTF_8, *, fixed: bool = False
) -> Iterator[TextBatch]:
    """The lines of a text file, packed or plain, `batch_bytes` at a time; what can't be decoded becomes U+FFFD.

    `fixed`: nobody can choose the encoding, so that messages name no option.

    Raises:
        DataError: if the file is missing, empty, not text, or a damaged archive.
    """
    number, rest = 1, ""
    for block in _texts(path, batch_bytes, encoding, fixed):
        head, newline, tail = block.rpartition("\n")
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


def _texts(path: Path, size: int, encoding: str, fixed: bool) -> Iterator[str]:
    """The text in blocks; a byte order mark is no part of it."""
    utf_8 = codecs.lookup(encoding).name == UTF_8
    decoder = codecs.getincrementaldecoder("utf-8-sig" if utf_8 else encoding)(errors="replace")
    first = True
    for block in byte_blocks(path, size):
        if first and utf_8 and block.startswith(_UTF_16_MARKS):
            how = "write it in UTF-8" if fixed else "read it with --encoding utf-16"
            raise DataError(f"{path} begins like UTF-16 and not like UTF-8; {how}")
        first = False
        try:
            text = decoder.decode(block)
        except UnicodeError as error:  # not that of a character, which is replaced
            how = "write it again" if fixed else "name its --encoding"
            raise DataError(f"{path} is not in {encoding.upper()} ({error}); {how}") from error
        if "\0" in text[:65536]:
            raise DataError(f"{path} is binary; expected text in {encoding.upper()}, one row per line")
        yield text
    yield decoder.decode(b"", final=True)


def _lines(text: str, first_number: int) -> tuple[pl.DataFrame, int]:
    """The lines of some text, and the number of the line after it."""
    lines = pl.Series("text", [text]).str.split("\n").explode()
    end = first_number + len(lines)
    frame = pl.DataFrame([lines.str.strip_chars_end("\r"), pl.Series("number", np.arange(first_number, end))])
    return frame.filter(pl.col("text").str.len_bytes() > 0), end
