"""CSV, JSON lines and Parquet files as batches of named columns, with the line or row number of each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from nann.errors import DataError

from .csv_rows import LINE, MALFORMED, SEPARATORS, CsvSplitter, TextFormat, header_fields
from .files import LogFile, is_parquet
from .json_rows import json_rows, json_schema, unread_lines
from .sources import BATCH_BYTES, TextBatch, text_batches

BATCH_ROWS = 2_000_000
"""Rows of a Parquet file per batch."""

NOT_UTF8 = "damaged text, or in another encoding"
REPLACED = "\ufffd"
"""Stands for bytes that can't be decoded. Names with it may have been different ones."""

CSV, JSON_LINES, PARQUET = "CSV", "JSON lines", "Parquet"
_HEADER_BYTES = 1 << 16
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises for a damaged Parquet file; it panics for some."""


@dataclass(frozen=True)
class TableBatch:
    """Some rows of a table.

    Attributes:
        rows: the requested columns under their names in the file, all String for a CSV and String or List(String) for
            JSON lines; `LINE` (Int64, 1-based line or row of the file) and `MALFORMED` (String: why the line can't be
            read, else null).
        unterminated: the last row is the last line of a text file, without a line end.
    """

    rows: pl.DataFrame
    unterminated: bool = False


@dataclass(frozen=True)
class Table:
    """A file and how it is read.

    Attributes:
        file: the file.
        kind: `CSV`, `JSON_LINES` or `PARQUET`.
        schema: name -> type of its columns, those of its Hive partitions included; names that occur twice are missing.
        text: its format, if it is text.
        separator: between the fields of a CSV.
        header: names of a CSV's fields.
        fixed: how it is read can't be chosen, so that messages name no option.
    """

    file: LogFile
    kind: str
    schema: Mapping[str, pl.DataType]
    text: TextFormat
    separator: str = ""
    header: tuple[str, ...] = ()
    fixed: bool = False

    @property
    def described(self) -> str:
        """The format in words."""
        if self.kind == PARQUET:
            return PARQUET
        shown = {"\t": "tabs"}.get(self.separator, repr(self.separator))
        between = f" with {shown} between the fields" if self.kind == CSV else ""
        return f"{self.kind}{between}, {self.text.encoding.upper()}"

    def batches(
        self, columns: Sequence[str], batch_bytes: int = BATCH_BYTES, batch_rows: int = BATCH_ROWS
    ) -> Iterator[TableBatch]:
        """Reads the named columns, which the table has.

        Raises:
            DataError: if the file can't be read.
        """
        names = list(dict.fromkeys(columns))
        in_folders = {name: value for name, value in self.file.partitions.items() if name in names}
        inside = [name for name in names if name not in in_folders]
        read = {CSV: self._csv, JSON_LINES: self._json, PARQUET: self._parquet}[self.kind]
        for batch in read(inside, batch_rows if self.kind == PARQUET else batch_bytes):
            given = [pl.lit(value, pl.String).alias(name) for name, value in in_folders.items()]
            texts = [name for name, kind in batch.rows.schema.items() if kind == pl.String and name in inside]
            nulls = pl.col(texts).replace(list(self.text.nulls), None) if self.text.nulls else pl.col(texts)
            yield TableBatch(batch.rows.with_columns(nulls, *given), batch.unterminated)

    def _csv(self, names: list[str], batch_bytes: int) -> Iterator[TableBatch]:
        splitter = CsvSplitter(self.header, self.separator, self.text)
        skip = not self.text.columns
        batches = text_batches(self.file.path, batch_bytes, self.text.encoding, fixed=self.fixed)
        for batch, is_last in _with_last(batches):
            lines = batch.lines.slice(1) if skip and batch.lines.height else batch.lines
            skip = skip and not batch.lines.height
            rows = splitter.split(lines, names, at_end=is_last)
            if rows.height:
                yield TableBatch(rows, batch.unterminated)

    def _json(self, names: list[str], batch_bytes: int) -> Iterator[TableBatch]:
        schema = {name: self.schema[name] for name in names}
        for batch in text_batches(self.file.path, batch_bytes, self.text.encoding, fixed=self.fixed):
            lines = batch.lines["text"]
            rows = json_rows(lines, schema).alias("row")
            malformed = unread_lines(lines, rows, schema).alias(MALFORMED)
            frame = pl.DataFrame([rows, batch.lines["number"].alias(LINE), malformed])
            yield TableBatch(frame.unnest("row"), batch.unterminated)

    def _parquet(self, names: list[str], batch_rows: int) -> Iterator[TableBatch]:
        try:
            frame = pl.scan_parquet(
                self.file.path, hive_partitioning=False, row_index_name=LINE, row_index_offset=1
            ).select(*names, pl.col(LINE).cast(pl.Int64), pl.lit(None, pl.String).alias(MALFORMED))
            count = frame.select(pl.len()).collect().item()
            for start in range(0, count, batch_rows):
                rows = frame.slice(start, batch_rows).collect()
                binary = [_decoded(rows[name]) for name, kind in rows.schema.items() if kind == pl.Binary]
                yield TableBatch(rows.with_columns(binary))
        except _UNREADABLE as error:
            raise _damaged(self.file.path, error) from error


def open_table(
    file: LogFile, text: TextFormat, wanted: Mapping[str, str], *, beside: bool = False, fixed: bool = False
) -> Table:
    """Finds out how a file is to be read.

    Args:
        file: CSV (plain or packed), JSON lines or Parquet, by its content.
        text: how to read text.
        wanted: columns that it must have: name -> the option that names it; or, of a `fixed` table, what it holds.
        beside: a table beside the log, which has a header, and maybe another separator.
        fixed: as of `Table`.

    Raises:
        DataError: if the file is missing, empty or damaged, or lacks a column.
    """
    if is_parquet(file.path):
        table = Table(file, PARQUET, _parquet_schema(file.path) | _folder_columns(file), text)
    else:
        batch = next(text_batches(file.path, _HEADER_BYTES, text.encoding, fixed=fixed), None)
        if batch is None or not batch.lines.height:
            raise DataError(f"{file.path} has no header; expected a first line that names the columns")
        lines = batch.lines["text"]
        first = lines[0].lstrip()
        if first.startswith("["):
            raise DataError(f"{file.path} is a JSON array; expected one object a line: jq -c '.[]' writes it so")
        if first.startswith("{"):
            table = Table(file, JSON_LINES, json_schema(lines.head(1_000)) | _folder_columns(file), text)
        else:
            table = _csv_table(file, lines[0], text, wanted, beside)
    table = replace(table, fixed=fixed)
    _check_columns(table, wanted)
    return table


def whole_table(table: Table, columns: Sequence[str], row: str) -> pl.DataFrame:
    """The named columns of a table that has one row per user or item (`row`, for messages), all at once, and `LINE`.

    Raises:
        DataError: if the file can't be read, has no rows, or has a line that can't be split or decoded.
    """
    path = table.file.path
    batches = [batch.rows for batch in table.batches(columns)]
    if not batches:
        raise DataError(f"{path} has no rows; expected one row per {row}")
    rows = pl.concat(batches)
    texts = [pl.col(name).str.contains(REPLACED, literal=True) for name in columns if rows.schema[name] == pl.String]
    damaged = pl.when(pl.any_horizontal(pl.lit(False), *texts)).then(pl.lit(NOT_UTF8))
    rows = rows.with_columns(pl.coalesce(MALFORMED, damaged).alias(MALFORMED))
    malformed = rows.filter(pl.col(MALFORMED).is_not_null())
    if malformed.height:
        number, reason = malformed.select(LINE, MALFORMED).row(0)
        advice = "" if table.fixed else ", or see --encoding and --separator"
        raise DataError(f"{path}:{number}: {reason}; correct the line{advice}")
    return rows.drop(MALFORMED)


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file that fits in memory, by the names of its columns.

    Raises:
        DataError: if the file can't be read.
    """
    try:
        frame = pl.read_parquet(path)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    yield from frame.iter_rows(named=True)


def _csv_table(file: LogFile, line: str, text: TextFormat, wanted: Mapping[str, str], beside: bool) -> Table:
    given = (text.separator,) if text.separator else ()
    fields = {
        mark: header_fields(line, mark, text) for mark in (given if given and not beside else (*given, *SEPARATORS))
    }
    if text.columns and not beside:
        separator = next((mark for mark in fields if len(fields[mark]) == len(text.columns)), None)
        if separator is None:
            counts = " or ".join(f"{len(found)} with {mark!r}" for mark, found in fields.items())
            raise DataError(
                f"--columns names {len(text.columns)} columns, and the first line of {file.path} has another number of "
                f"fields: {counts}. Name each column, and what is between the fields with --separator"
            )
        header = text.columns
    else:
        separator = max(fields, key=lambda mark: (len(wanted.keys() & set(fields[mark])), len(fields[mark])))
        header = tuple(fields[separator])
    once = {name: pl.String() for name in header if header.count(name) == 1}
    return Table(file, CSV, once | _folder_columns(file), text, separator, header)


def _folder_columns(file: LogFile) -> dict[str, pl.DataType]:
    return dict.fromkeys(file.partitions, pl.String())


def _check_columns(table: Table, wanted: Mapping[str, str]) -> None:
    path, header = table.file.path, table.header
    for name in wanted:
        if header.count(name) > 1:
            raise DataError(f"the header of {path} has column {name!r} twice; give each column its own name")
    missing = [f"{name!r} ({option})" for name, option in wanted.items() if name not in table.schema]
    if missing:
        options = (
            "Name its columns with these options, what is between the fields of a CSV with --separator, and the "
            "columns of a file without a header with --columns"
        )
        raise DataError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(map(repr, table.schema))}. "
            + ("Expected a table with these columns, and a CSV with a header" if table.fixed else options)
        )


def _parquet_schema(path: Path) -> dict[str, pl.DataType]:
    try:
        schema = pl.scan_parquet(path, hive_partitioning=False).collect_schema()
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    return {name: pl.String() if kind == pl.Binary else kind for name, kind in schema.items()}


def _decoded(binary: pl.Series) -> pl.Series:
    """Binary as the UTF-8 that it is; what is no UTF-8 becomes U+FFFD, as in text files."""
    try:
        text: pl.Series = binary.cast(pl.String)
    except pl.exceptions.ComputeError:
        texts = [None if value is None else value.decode("utf-8", "replace") for value in binary]
        text = pl.Series(binary.name, texts, pl.String)
    return text


def _damaged(path: Path, error: BaseException) -> DataError:
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} can't be read as Parquet ({first_line}); expected a whole Parquet file: write it again")


def _with_last(batches: Iterator[TextBatch]) -> Iterator[tuple[TextBatch, bool]]:
    """Each batch, and whether it is the last."""
    held = next(batches, None)
    while held is not None:
        following = next(batches, None)
        yield held, following is None
        held = following
