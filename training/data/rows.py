"""What every reader returns: canonical rows on disk, and counts of the bad ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from nann.errors import ConfigError, DataError

from .csv_rows import BROKEN_QUOTES, WRONG_COLUMNS
from .item_table import ItemValues
from .json_rows import LIST_IN_COLUMN, OBJECT_IN_COLUMN
from .profiles import UserProfiles
from .times import MICROSECONDS

MAX_BAD_SHARE = 0.01
"""Share of bad rows above which a log is refused."""

CUT_LAST_LINE = "cut last line"
TRIMMED = "trimmed"
"""Optional column of a batch: whether spaces around a key were left out."""
VALUE = "value"
"""Optional column of a batch: the text that is the problem."""
KEEP = "keep"
"""Optional column of a batch: whether a good row is kept. Those that are not are counted."""
EXAMPLE_COUNT = 5
_SHOWN_LENGTH = 60

ANOTHER_UNIT = "is a number of"
"""Within the reason why a time is bad, before its unit."""

ADVICE = {
    ANOTHER_UNIT: "write all times in one unit, or as text such as 2024-01-31T12:30:00Z",
    LIST_IN_COLUMN: "write a list in each line, or in none",
    OBJECT_IN_COLUMN: "take the values out of the objects, as jq -c '.item = .item.id' does",
    "damaged text": "--encoding names the encoding of text, such as latin-1",
    WRONG_COLUMNS: "--separator says what is between the fields, --quote '' that quotes are text",
    BROKEN_QUOTES: "--quote '' says that quotes are text, --escape what stands before one",
    "time (": "--time-format says how times are written, --time which column has them",
    "item (": "--item says which column has the items, --item-ids how they are read, --null what stands for none",
    "user (": "--user says which column has the users, --null what stands for none",
    "value (": "--value-column says which column has the values, --null what stands for none",
}
"""What may help, by a part of the reason why rows are bad; the first part that a reason has counts."""
_FEW = 0.1


@dataclass(frozen=True)
class RowCounts:
    """The manifest's `rows` entry.

    Attributes:
        read: rows in the files, bad and filtered ones included; blank lines and a cut last line do not count.
        bad: how many of them are bad.
        bad_by_reason: the same by reason, most frequent first.
        bad_examples: the first bad rows as "file:line (reason)".
        cut_last_lines: files whose last line is cut off, which is not a bad row.
        filtered: good rows left out by the reader's own filter (behaviour types).
        trimmed: good rows with spaces around a key, which are left out.
    """

    read: int
    bad: int = 0
    bad_by_reason: dict[str, int] = field(default_factory=dict)
    bad_examples: tuple[str, ...] = ()
    cut_last_lines: int = 0
    filtered: int = 0
    trimmed: int = 0


class EmptyLogError(DataError):
    """Nothing that was read is to be kept.

    Attributes:
        counts: of the rows that were read.
    """

    def __init__(self, counts: RowCounts) -> None:
        super().__init__(
            f"the log is empty: {counts.read:,} rows were read, {counts.bad:,} of them are bad and "
            f"{counts.filtered:,} of another type or too small a value; expected at least one row to keep"
        )
        self.counts = counts


@dataclass(frozen=True)
class Appended:
    """What a log adds to a prepared data set.

    Attributes:
        items: the data set's items, in the order of their numbers.
        users: its users, `user`, and what they were for, `role`: "validation", "test" or "train".
        older: rows of the log that are left out: they are older than the newest row of the data set.
        known: rows of its newest time that it has already.
    """

    items: pl.Series
    users: pl.DataFrame
    older: int
    known: int


@dataclass(frozen=True)
class InteractionLog:
    """A log in canonical form.

    Attributes:
        name: default name of the data set.
        sources: names of the files or the package it was read from.
        rows: in file order: `user` (Int64 or String), `item` (Int64, positive; or String), `time` (Int64, since 1970),
            and if the log has them `category` and `basket` (Int64 or String).
        items: `item` and optionally `category`, `name`, if the log has a table of items.
        settings: the reader's options, for the manifest.
        ticks_per_s: the unit of `time`.
        attributes: the values of the items' attributes, if the log has them.
        conversions: what else was left out or read in another way than it is written, a line each.
        appendable: the data set keeps the rows, so that others can be appended.
        appended: what is new, if the rows are those of a data set and more.
    """

    name: str
    sources: tuple[str, ...]
    rows: pl.LazyFrame
    counts: RowCounts
    items: pl.LazyFrame | None = None
    profiles: UserProfiles | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ticks_per_s: int = MICROSECONDS
    attributes: ItemValues | None = None
    conversions: tuple[str, ...] = ()
    appendable: bool = False
    appended: Appended | None = None


class RowStage:
    """Takes a reader's rows batch by batch: writes good ones to Parquet parts in `scratch`, counts bad ones.

    `advice` says what helps against bad rows, by a part of their reason.

    Raises:
        ConfigError: if `max_bad_share`, above which `finish` refuses the log, is outside 0 to 1.
    """

    def __init__(self, scratch: Path, max_bad_share: float, advice: Mapping[str, str] = ADVICE) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ConfigError(f"max_bad_share is {max_bad_share}; expected a share from 0 to 1")
        self._scratch = scratch
        self._max_bad_share = max_bad_share
        self._advice = advice
        self._parts: list[Path] = []
        self._read = self._filtered = self._cut = self._trimmed = 0
        self._reasons: Counter[str] = Counter()
        self._examples: list[tuple[str, str, str]] = []

    @property
    def read(self) -> int:
        """How many rows were added."""
        return self._read

    @property
    def has_rows(self) -> bool:
        """Whether some row is good and kept."""
        return bool(self._parts)

    def add(self, source: str, batch: pl.DataFrame) -> pl.DataFrame:
        """Adds one batch, and returns its good rows that are kept.

        Args:
            source: name of the file, for messages.
            batch: the canonical columns, `number` (line or row of the file, 1-based) and `problem` (String, null for a
                good row); maybe `VALUE`, `TRIMMED` and `KEEP`.
        """
        value = pl.col(VALUE) if VALUE in batch.columns else pl.lit(None, pl.String).alias(VALUE)
        bad = batch.filter(pl.col("problem").is_not_null()).select("number", "problem", value)
        cut = bad.filter(pl.col("problem") == CUT_LAST_LINE).height
        self._cut += cut
        self._read += batch.height - cut
        self._count_bad(source, bad.filter(pl.col("problem") != CUT_LAST_LINE))
        good = batch.filter(pl.col("problem").is_null())
        kept = good.filter(KEEP) if KEEP in good.columns else good
        self._filtered += good.height - kept.height
        if TRIMMED in kept.columns:
            self._trimmed += int(kept[TRIMMED].sum())
        if kept.height:
            part = self._scratch / f"rows-{len(self._parts):05d}.parquet"
            kept.select(pl.exclude("number", "problem", VALUE, TRIMMED, KEEP, "event")).write_parquet(part)
            self._parts.append(part)
        return kept

    def finish(self) -> tuple[pl.LazyFrame, RowCounts]:
        """The good rows of all batches, and the counts.

        Raises:
            DataError: if too many rows are bad.
            EmptyLogError: if none is left.
        """
        bad = sum(self._reasons.values())
        reasons = dict(self._reasons.most_common())
        examples = tuple(
            f"{place} ({reason}{f': {value}' if value else ''})" for place, reason, value in self._examples
        )
        counts = RowCounts(self._read, bad, reasons, examples, self._cut, self._filtered, self._trimmed)
        if bad > self._max_bad_share * self._read:
            raise DataError(self._refusal(counts))
        if not self._parts:
            raise EmptyLogError(counts)
        return pl.scan_parquet(self._parts), counts

    def _count_bad(self, source: str, bad: pl.DataFrame) -> None:
        for reason, count in bad.group_by("problem").len().rows():
            self._reasons[reason] += count
        for number, reason, value in bad.head(EXAMPLE_COUNT - len(self._examples)).rows():
            self._examples.append((f"{source}:{number}", reason, repr(_shortened(value)) if value else ""))

    def _refusal(self, counts: RowCounts) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.bad_by_reason.items())
        first = [f"{place} ({value})" if value else place for place, _, value in self._examples]
        return (
            f"{counts.bad:,} of {counts.read:,} rows are bad ({counts.bad / counts.read:.1%}; at most "
            f"{self._max_bad_share:.1%} may be): {reasons}. "
            f"First: {'; '.join(first if len(counts.bad_by_reason) == 1 else counts.bad_examples)}. {self._how(counts)}"
        )

    def _how(self, counts: RowCounts) -> str:
        """What to do about bad rows."""
        if counts.bad < _FEW * counts.read:
            return "Correct these rows, or raise the tolerated share with --max-bad-share"
        fitting = ([text for part, text in self._advice.items() if part in reason] for reason in counts.bad_by_reason)
        advice = [texts[0] for texts in fitting if texts]
        known = f": {'; '.join(dict.fromkeys(advice))}" if advice else "; see --help"
        return f"So many are seldom damaged, but read in the wrong way{known}"


def mark_cut(batch: pl.DataFrame, cut: pl.Expr | None = None) -> pl.DataFrame:
    """Marks the rows of an unterminated last line as cut if they have a problem, or if `cut` is true."""
    is_last = pl.col("number") == pl.col("number").max()
    is_cut = is_last & (pl.col("problem").is_not_null() | (pl.lit(False) if cut is None else cut))
    return batch.with_columns(problem=pl.when(is_cut).then(pl.lit(CUT_LAST_LINE)).otherwise(pl.col("problem")))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."
