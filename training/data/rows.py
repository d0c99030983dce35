"""What every reader gives: canonical rows on disk, and an account of the bad ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from nann.errors import ConfigError, DataError

from .profiles import UserProfiles

MAX_BAD_SHARE = 0.01
"""Share of bad rows above which a log is refused."""

CUT_LAST_LINE = "cut last line"
EXAMPLE_COUNT = 5


@dataclass(frozen=True)
class RowCounts:
    """What a reader found.

    Attributes:
        read: rows in the files, bad and filtered ones included; blank lines and a cut last line are none.
        bad: how many of them are bad.
        filtered: how many good rows the reader's own filter (behaviour types) left out.
        cut_last_lines: files whose last line is cut off; never refused.
        reasons: bad rows by reason, most frequent first.
        examples: the first bad rows as "file:line (reason)".
    """

    read: int
    bad: int
    filtered: int
    cut_last_lines: int
    reasons: Mapping[str, int]
    examples: tuple[str, ...]

    def manifest(self) -> dict[str, Any]:
        """The manifest's `rows` entry."""
        return {
            "read": self.read,
            "bad": self.bad,
            "bad_by_reason": dict(self.reasons),
            "bad_examples": list(self.examples),
            "cut_last_lines": self.cut_last_lines,
            "filtered": self.filtered,
        }


@dataclass(frozen=True)
class InteractionLog:
    """A log in canonical form.

    Attributes:
        name: what the log is, for the manifest.
        sources: names of the files or the package it was read from.
        rows: `user` (Int64 or String), `item` (Int64, positive), `time` (Int64; only its order counts), and where the
            log has them `category` (Int64 or String) and `basket` (Int64 or String). In file order.
        counts: rows read and bad rows.
        items: `item` and optionally `category`, `name`, where the log keeps them in a table of their own.
        profiles: user profile fields, if there are any.
        settings: the reader's options, for the manifest.
    """

    name: str
    sources: tuple[str, ...]
    rows: pl.LazyFrame
    counts: RowCounts
    items: pl.LazyFrame | None = None
    profiles: UserProfiles | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class RowStage:
    """Takes a reader's rows batch by batch: good ones go to Parquet parts in a scratch folder, bad ones are counted."""

    def __init__(self, scratch: Path, max_bad_share: float = MAX_BAD_SHARE) -> None:
        """Prepares an empty stage.

        Args:
            scratch: folder for the parts; must stay until the log has been used.
            max_bad_share: share of bad rows above which `finish` refuses the log.

        Raises:
            ConfigError: if the share is outside 0 to 1.
        """
        if not 0 <= max_bad_share <= 1:
            raise ConfigError(f"max_bad_share is {max_bad_share}; expected a share from 0 to 1")
        self._scratch = scratch
        self._max_bad_share = max_bad_share
        self._parts: list[Path] = []
        self._read = self._filtered = self._cut = 0
        self._reasons: Counter[str] = Counter()
        self._examples: list[str] = []

    def add(self, source: str, batch: pl.DataFrame, keep: pl.Expr | None = None) -> None:
        """Adds one batch.

        Args:
            source: name of the file, for messages.
            batch: the canonical columns, `number` (line or row of the file, 1-based) and `problem` (String, null for a
                good row).
            keep: leaves out good rows for which it is false.
        """
        bad = batch.filter(pl.col("problem").is_not_null()).select("number", "problem")
        cut = bad.filter(pl.col("problem") == CUT_LAST_LINE).height
        self._cut += cut
        self._read += batch.height - cut
        self._count_bad(source, bad.filter(pl.col("problem") != CUT_LAST_LINE))
        good = batch.filter(pl.col("problem").is_null())
        kept = good if keep is None else good.filter(keep)
        self._filtered += good.height - kept.height
        if kept.height:
            part = self._scratch / f"rows-{len(self._parts):05d}.parquet"
            kept.select(pl.exclude("number", "problem", "type")).write_parquet(part)
            self._parts.append(part)

    def finish(self) -> tuple[pl.LazyFrame, RowCounts]:
        """The good rows of all batches, and the account.

        Raises:
            DataError: if too many rows are bad, or no row is left.
        """
        bad = sum(self._reasons.values())
        counts = RowCounts(
            self._read, bad, self._filtered, self._cut, dict(self._reasons.most_common()), tuple(self._examples)
        )
        if bad > self._max_bad_share * self._read:
            raise DataError(_refusal(counts, self._max_bad_share))
        if not self._parts:
            raise DataError(
                f"the log is empty: {counts.read:,} rows were read, {counts.bad:,} of them are bad and "
                f"{counts.filtered:,} of another behaviour type; expected at least one row to keep"
            )
        return pl.scan_parquet(self._parts), counts

    def _count_bad(self, source: str, bad: pl.DataFrame) -> None:
        for reason, count in bad.group_by("problem").len().rows():
            self._reasons[reason] += count
        for number, reason in bad.head(EXAMPLE_COUNT - len(self._examples)).rows():
            self._examples.append(f"{source}:{number} ({reason})")


def first_problem(checks: Iterable[tuple[pl.Expr, str]]) -> pl.Expr:
    """The `problem` column: the reason of the first check that is true, null where none is."""
    return pl.coalesce([pl.when(check).then(pl.lit(reason)) for check, reason in checks]).alias("problem")


def mark_cut(batch: pl.DataFrame, cut: pl.Expr | None = None) -> pl.DataFrame:
    """Calls an unterminated last line cut if it is bad, or if `cut` says so.

    Args:
        batch: one row, with `problem`.
        cut: another sign of a cut line.
    """
    sign = pl.col("problem").is_not_null()
    sign = sign if cut is None else sign | cut
    return batch.with_columns(problem=pl.when(sign).then(pl.lit(CUT_LAST_LINE)).otherwise(pl.col("problem")))


def _refusal(counts: RowCounts, max_bad_share: float) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.reasons.items())
    return (
        f"{counts.bad:,} of {counts.read:,} rows are bad ({counts.bad / counts.read:.1%}; at most {max_bad_share:.1%} "
        f"may be): {reasons}. First: {'; '.join(counts.examples)}. "
        "Correct these rows, or raise the tolerated share with --max-bad-share"
    )
