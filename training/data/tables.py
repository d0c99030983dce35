"""CSV and Parquet files as batches of named columns, with the line or row number of each row."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nann.errors import ConfigError, DataError

from .sources import BATCH_BYTES, BATCH_ROWS, TextBatch, is_parquet, text_batches

WRONG_COLUMNS = "wrong number of columns"
BROKEN_QUOTES = "a quote that does not close on its line"
NOT_UTF8 = "not UTF-8"
REPLACED = "\ufffd"
"""Stands for bytes that are not UTF-8. Names with it may have been different ones."""

_HEADER_BYTES = 1 << 16

LINE = "__line__"
MALFORMED = "__malformed__"
"""Names that no log's own column should have."""


@dataclass(frozen=True)
class TableBatch:
    """Some rows of a table.

    Attributes:
        rows: the requested columns under their names in the file, all String for a CSV; `LINE` (Int64, 1-based line or
            row of the file) and `MALFORMED` (String: why the line can't be split, else null).
        unterminated: the batch is the last line of a CSV, without a line end.
    """

    rows: pl.DataFrame
    unterminated: bool = False


def table_schema(path: Path, separator: str) -> dict[str, pl.DataType]:
    """Columns of a CSV (its first line) or Parquet file and their types.

    Raises:
        ConfigError: if the separator is not one character.
        DataError: if the file is missing, empty or damaged.
    """
    if len(separator) != 1 or separator.isalnum() or separator in '"\n\r':
        raise ConfigError(f"separator is {separator!r}; expected one character that is no letter, digit or quote")
    if is_parquet(path):
        try:
            return dict(pl.scan_parquet(path).collect_schema())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _damaged(path, error) from error
    first = next(text_batches(path, _HEADER_BYTES), None)
    if first is None or not first.lines.height:
        raise DataError(f"{path} has no header; expected a first line that names the columns")
    fields = [name.strip() for name in _quoted_fields(first.lines["text"].head(1), separator)[0][0]]
    if len(set(fields)) < len(fields):
        repeated = next(name for name in fields if fields.count(name) > 1)
        raise DataError(f"the header of {path} has column {repeated!r} twice; give each column its own name")
    return dict.fromkeys(fields, pl.String())


def check_columns(path: Path, schema: dict[str, pl.DataType], wanted: Mapping[str, str]) -> None:
    """Raises DataError if a table lacks some of the wanted columns: name -> the option that names it."""
    missing = [f"{name!r} ({option})" for name, option in wanted.items() if name not in schema]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(map(repr, schema))}. Name its columns with "
            "these options, and what is between the fields of a CSV with --separator"
        )


def table_batches(
    path: Path, columns: Sequence[str], separator: str, batch_bytes: int = BATCH_BYTES, batch_rows: int = BATCH_ROWS
) -> Iterator[TableBatch]:
    """Reads the named columns of a CSV (plain or gzip) or Parquet file.

    The file has them (`check_columns`).

    Raises:
        DataError: if the file can't be read.
    """
    schema = table_schema(path, separator)
    names = list(dict.fromkeys(columns))
    if is_parquet(path):
        yield from _parquet_batches(path, names, batch_rows)
        return
    header_seen = False
    for batch in text_batches(path, batch_bytes):
        lines = batch if header_seen else TextBatch(batch.lines.slice(1), batch.unterminated)
        header_seen = header_seen or batch.lines.height > 0
        if lines.lines.height:
            yield TableBatch(_split(lines.lines, list(schema), names, separator), batch.unterminated)


def whole_table(path: Path, columns: Sequence[str], separator: str, row: str) -> pl.DataFrame:
    """The named columns of a table that has one row per user or item (`row`, for messages), all at once.

    Raises:
        DataError: if the file can't be read, has no rows, or has a line that can't be split or is not UTF-8.
    """
    batches = [batch.rows for batch in table_batches(path, columns, separator)]
    if not batches:
        raise DataError(f"{path} has no rows; expected one row per {row}")
    table = pl.concat(batches)
    texts = [pl.col(name).str.contains(REPLACED, literal=True) for name in columns if table.schema[name] == pl.String]
    damaged = pl.when(pl.any_horizontal(pl.lit(False), *texts)).then(pl.lit(NOT_UTF8))
    table = table.with_columns(pl.coalesce(MALFORMED, damaged).alias(MALFORMED))
    malformed = table.filter(pl.col(MALFORMED).is_not_null())
    if malformed.height:
        number, reason = malformed.select(LINE, MALFORMED).row(0)
        raise DataError(f"{path}:{number}: {reason}; correct the line")
    return table.drop(LINE, MALFORMED)


def _parquet_batches(path: Path, names: list[str], batch_rows: int) -> Iterator[TableBatch]:
    try:
        frame = pl.scan_parquet(path).select(names)
        count = frame.select(pl.len()).collect().item()
        for start in range(0, count, batch_rows):
            rows = frame.slice(start, batch_rows).collect()
            number = pl.int_range(start + 1, start + rows.height + 1, dtype=pl.Int64).alias(LINE)
            yield TableBatch(rows.with_columns(number, pl.lit(None, pl.String).alias(MALFORMED)))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged(path, error) from error


def _split(lines: pl.DataFrame, schema: list[str], names: list[str], separator: str) -> pl.DataFrame:
    """Splits lines into fields; only lines with a quote take the slow way."""
    has_quote = pl.col("text").str.contains('"', literal=True)
    quoted = lines.filter(has_quote)
    plain = _plain_rows(lines.filter(~has_quote) if quoted.height else lines, schema, names, separator)
    if not quoted.height:
        return plain
    return pl.concat([plain, _quoted_rows(quoted, schema, names, separator)]).sort(LINE)


def _plain_rows(lines: pl.DataFrame, schema: list[str], names: list[str], separator: str) -> pl.DataFrame:
    fields = split_plain(lines, [str(position) for position in range(len(schema))], separator)
    columns = [pl.col(str(schema.index(name))).alias(name) for name in names]
    return fields.select(*columns, pl.col("number").alias(LINE), MALFORMED)


def split_plain(lines: pl.DataFrame, names: Sequence[str], separator: str) -> pl.DataFrame:
    """Splits the `text` of lines without quotes into String columns; adds `MALFORMED`."""
    # One part more than there are columns reveals a line with too many.
    parts = pl.col("text").str.split_exact(separator, len(names)).struct.rename_fields([*names, "more"])
    wrong = pl.col(names[-1]).is_null() | pl.col("more").is_not_null()
    malformed = pl.when(wrong).then(pl.lit(WRONG_COLUMNS)).alias(MALFORMED)
    return lines.with_columns(parts).unnest("text").with_columns(malformed).drop("more")


def _quoted_rows(lines: pl.DataFrame, schema: list[str], names: list[str], separator: str) -> pl.DataFrame:
    fields, whole = _quoted_fields(lines["text"], separator)
    frame = lines.select("number").with_columns(fields.alias("fields"), whole.alias("whole"))
    malformed = (
        pl.when(~pl.col("whole"))
        .then(pl.lit(BROKEN_QUOTES))
        .when(pl.col("fields").list.len() != len(schema))
        .then(pl.lit(WRONG_COLUMNS))
    )
    columns = [pl.col("fields").list.get(schema.index(name), null_on_oob=True).alias(name) for name in names]
    return frame.select(*columns, pl.col("number").alias(LINE), malformed.alias(MALFORMED))


def _quoted_fields(text: pl.Series, separator: str) -> tuple[pl.Series, pl.Series]:
    """The unquoted fields of each line, List(String), and whether the whole line consists of fields."""
    end = f"\\{separator}" if separator in string.punctuation else separator
    # A separator is appended, so that every field ends in one.
    pattern = rf'(?:"(?:[^"]|"")*"|[^"{end}][^{end}]*|){end}'
    ended = text + separator
    raw = ended.str.extract_all(pattern)
    whole = raw.list.join("").str.len_bytes() == ended.str.len_bytes()
    unquoted = raw.list.eval(
        pl.element()
        .str.strip_suffix(separator)
        .str.replace(r'(?s)^"(.*)"$', "$1")
        .str.replace_all('""', '"', literal=True)
    )
    return unquoted, whole


def _damaged(path: Path, error: Exception) -> DataError:
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} can't be read as Parquet ({first_line}); expected a whole Parquet file: write it again")
