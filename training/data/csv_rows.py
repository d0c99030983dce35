"""Lines of a CSV as rows of fields, each with its line number.

Most lines have no quotes, or quotes around whole fields. They are split a batch at a time. Python's csv module reads
the others: fields with separators, quotes or line breaks inside (RFC 4180), and backslash escapes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.errors import ConfigError

from .sources import UTF_8, check_encoding

LINE, MALFORMED = "__line", "__malformed"
"""Names that no log's own column should have."""

WRONG_COLUMNS = "wrong number of columns"
BROKEN_QUOTES = "a quote that does not close, or text after it"
SEPARATORS = (",", "\t", ";", "|", "::")
"""Those that are looked for if none is given."""

_MAX_RECORD_LINES = 10_000
_UNIT = "\x1f"
"""The csv module wants one character for a separator of several."""


@dataclass(frozen=True)
class TextFormat:
    r"""How text files are to be read.

    Attributes:
        separator: between the fields of a CSV; empty: it is found from the header.
        columns: the columns' names, if the files have no header.
        encoding: of the text.
        quote: around fields; empty: quotes are text like any other.
        escape: a character that makes the next one text. With a backslash a field `\N` is a missing value.
        nulls: texts that stand for a missing value.
    """

    separator: str = ""
    columns: tuple[str, ...] = ()
    encoding: str = UTF_8
    quote: str = '"'
    escape: str = ""
    nulls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        if any(mark.isalnum() or mark in '"\n\r' for mark in self.separator):
            raise ConfigError(
                f"separator is {self.separator!r}; expected characters that are no letters, digits or quotes"
            )
        for name, value in (("quote", self.quote), ("escape", self.escape)):
            if len(value) > 1 or value.isalnum() or (value in self.separator and value):
                raise ConfigError(f"{name} is {value!r}; expected one character that is no letter and no separator")


def header_fields(line: str, separator: str, text: TextFormat) -> list[str]:
    """The fields of a file's first line, without spaces around them; [] if its quotes are broken."""
    records = list(_records([line], np.zeros(1, np.int64), separator, text, None, at_end=True))
    fields = records[0][2]
    return [] if fields is None else [field.strip() for field in fields]


class CsvSplitter:
    """Splits the lines of one file, batch by batch, into String columns; a row may go on in the next batch."""

    def __init__(self, schema: Sequence[str], separator: str, text: TextFormat) -> None:
        self._schema, self._separator, self._text = list(schema), separator, text
        self._open = pl.DataFrame(schema={"text": pl.String, "number": pl.Int64})

    def split(self, lines: pl.DataFrame, names: Sequence[str], *, at_end: bool) -> pl.DataFrame:
        """The named columns of the rows that end in these lines, `LINE` and `MALFORMED`, in order.

        Args:
            lines: as in `TextBatch`.
            names: columns of the schema.
            at_end: these are the last lines of the file.
        """
        lines = pl.concat([self._open, lines])
        self._open = lines.clear()
        quoted = self._special(pl.col("text"))
        if not lines.select(quoted.any()).item():
            return self._picked(split_plain(lines, self._places(), self._separator), names)
        fields = self._unquoted(lines)
        hard = fields["__hard"].to_numpy().nonzero()[0]
        taken = np.zeros(lines.height, bool)
        rows: list[tuple[int, list[str] | None]] = []
        texts = lines["text"].to_list()
        count = len(self._schema)
        for first, end, values in _records(texts, hard, self._separator, self._text, count, at_end=at_end):
            taken[first:end] = True
            if end > len(texts):
                self._open = lines.slice(first)
            else:
                rows.append((first, values))
        easy = self._picked(fields.filter(pl.Series(~taken)), names)
        return pl.concat([easy, self._hard_rows(rows, lines["number"], names)]).sort(LINE)

    def _special(self, text: pl.Expr) -> pl.Expr:
        marks = [mark for mark in (self._text.quote, self._text.escape) if mark]
        return pl.any_horizontal(pl.lit(False), *(text.str.contains(mark, literal=True) for mark in marks))

    def _places(self) -> list[str]:
        return [str(place) for place in range(len(self._schema))]

    def _unquoted(self, lines: pl.DataFrame) -> pl.DataFrame:
        """As `split_plain`, without quotes around fields; and `__hard`: whether a line is for the csv module."""
        places, quote = self._places(), self._text.quote
        fields = split_plain(lines, places, self._separator)
        if not quote or self._text.escape:
            return fields.with_columns(lines.select(self._special(pl.col("text")).alias("__hard")))
        count = pl.col(*places).str.count_matches(quote, literal=True)
        whole = pl.col(*places).str.starts_with(quote) & pl.col(*places).str.ends_with(quote)
        hard = fields.select(pl.any_horizontal((count > 0) & ~((count == 2) & whole))).to_series().fill_null(True)
        # A line with the wrong number of columns may be the first of several.
        special = lines.select(self._special(pl.col("text"))).to_series()
        hard = special & (hard | fields[MALFORMED].is_not_null())
        bare = pl.when(whole).then(pl.col(*places).str.strip_chars(quote)).otherwise(pl.col(*places))
        return fields.with_columns(bare, hard.alias("__hard"))

    def _picked(self, fields: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        columns = [pl.col(str(self._schema.index(name))).alias(name) for name in names]
        return fields.select(*columns, pl.col("number").alias(LINE), MALFORMED)

    def _hard_rows(
        self, rows: list[tuple[int, list[str] | None]], numbers: pl.Series, names: Sequence[str]
    ) -> pl.DataFrame:
        count, empty = len(self._schema), [""] * len(self._schema)
        whole = [values if values is not None and len(values) == count else empty for _, values in rows]
        columns = zip(*whole, strict=True) if whole else [()] * count
        by_name = dict(zip(map(str, range(count)), columns, strict=True))
        reasons = [
            BROKEN_QUOTES if values is None else None if len(values) == count else WRONG_COLUMNS for _, values in rows
        ]
        data = {name: by_name[str(self._schema.index(name))] for name in names}
        line = numbers.gather([first for first, _ in rows]).alias(LINE)
        frame = pl.DataFrame(data, schema=dict.fromkeys(names, pl.String))
        return frame.with_columns(line, pl.Series(MALFORMED, reasons, pl.String))


def split_plain(lines: pl.DataFrame, names: Sequence[str], separator: str) -> pl.DataFrame:
    """Splits the `text` of lines without quotes into String columns; adds `MALFORMED`."""
    # One part more than there are columns reveals a line with too many.
    parts = pl.col("text").str.split_exact(separator, len(names)).struct.rename_fields([*names, "more"])
    wrong = pl.col(names[-1]).is_null() | pl.col("more").is_not_null()
    malformed = pl.when(wrong).then(pl.lit(WRONG_COLUMNS)).alias(MALFORMED)
    return lines.with_columns(parts).unnest("text").with_columns(malformed).drop("more")


def _records(
    lines: Sequence[str],
    starts: npt.NDArray[np.int64],
    separator: str,
    text: TextFormat,
    count: int | None,
    *,
    at_end: bool,
) -> Iterator[tuple[int, int, list[str] | None]]:
    """The rows that begin at the given lines, unless they are inside the row before.

    Yields:
        First line, the line after the last, and the fields; None if the quotes of the first line are broken, which
        several lines with another number of fields than `count` are too. The end is beyond the lines if the row goes on
        after them.
    """
    position = start = 0

    def rest() -> Iterator[str]:
        nonlocal position
        while position < min(len(lines), start + _MAX_RECORD_LINES):
            line = lines[position]
            position += 1
            yield f"{_for_csv(line, separator, text)}\n"

    def reader() -> Iterator[list[str]]:
        mark = separator if len(separator) == 1 else _UNIT
        return csv.reader(
            rest(),
            delimiter=mark,
            quotechar=text.quote or None,
            escapechar=text.escape or None,
            quoting=csv.QUOTE_MINIMAL if text.quote else csv.QUOTE_NONE,
            strict=True,
        )

    rows = reader()
    for start in starts.tolist():
        if start < position:
            continue
        position, fields = start, None
        try:
            fields = next(rows)
            if count is not None and position > start + 1 and len(fields) != count:
                raise csv.Error
        except (csv.Error, StopIteration):
            if position == len(lines) < start + _MAX_RECORD_LINES and not at_end and fields is None:
                yield start, len(lines) + 1, None
                return
            position, rows = start + 1, reader()
            yield start, start + 1, None
        else:
            joined = fields if len(separator) == 1 else [field.replace(_UNIT, separator) for field in fields]
            yield start, position, joined


def _for_csv(line: str, separator: str, text: TextFormat) -> str:
    """A line as the csv module can read it."""
    if text.escape == "\\" and "\\N" in line:
        end = re.escape(separator)
        line = re.sub(rf"(^|{end})\\N(?={end}|$)", r"\1", line)
    return line if len(separator) == 1 else line.replace(separator, _UNIT)
