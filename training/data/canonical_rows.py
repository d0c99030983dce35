"""A log's own columns as canonical rows: user, item, time, category and basket, and what is wrong with a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from nann.errors import ConfigError
from nann.item_ids import MAX_ID_BYTES

from .columns import item_number, key_column, may_be_lost
from .csv_rows import LINE, MALFORMED
from .rows import ANOTHER_UNIT, KEEP, TRIMMED, VALUE
from .tables import NOT_UTF8, REPLACED
from .times import UNITS, TimeColumn, as_number, unit_of

EVENT = "event"
"""Optional column of canonical rows: the event's type as text."""

LISTS_DIFFER = "lists of different lengths"
ITEM_IDS = ("auto", "number", "text")


@dataclass(frozen=True)
class LogColumns:
    """Names of a log's columns. None: the log has no such column; without a time the order of the rows is the time."""

    user: str = "user"
    item: str = "item"
    time: str | None = "time"
    category: str | None = None
    basket: str | None = None
    event: str | None = None
    value: str | None = None

    def named(self) -> dict[str, str]:
        """Canonical name -> the log's name, for the columns it has."""
        return {key: name for key, name in asdict(self).items() if name is not None}

    def options(self) -> dict[str, str]:
        """The log's name -> the option that gives it."""
        longer = {"event": "event-column", "value": "value-column"}
        return {name: f"--{longer.get(key, key)}" for key, name in self.named().items()}


@dataclass(frozen=True)
class LogRules:
    """Which rows of a log are kept, and how values are read that could be read in several ways.

    Attributes:
        events: the types of events that are kept, if the log has a column of them.
        min_value: the least value that is kept, if the log has a column of values.
        time_format: strftime format of the times; None: numbers, timestamps and ISO 8601.
        item_ids: "number": what is no whole number from 1 to 2^63 - 1 is a bad row; "text"; "auto": numbers if all are.
        user_ids: "text", or "auto": numbers if all are.
    """

    events: tuple[str, ...] = ()
    min_value: float | None = None
    time_format: str | None = None
    item_ids: str = "auto"
    user_ids: str = "auto"

    @property
    def texts(self) -> list[str]:
        """Which of "item" and "user" are text in any case."""
        return [key for key, kind in (("item", self.item_ids), ("user", self.user_ids)) if kind == "text"]

    def check(self, columns: LogColumns) -> None:
        """Raises ConfigError if the rules do not fit the columns, or a value is none of those that there are."""
        if (columns.event is None) != (not self.events):
            raise ConfigError(
                "--event-column and --events are given together: the column, and its values that are kept"
            )
        if (columns.value is None) != (self.min_value is None):
            raise ConfigError("--value-column and --min-value are given together: the column, and the least value kept")
        if self.item_ids not in ITEM_IDS:
            raise ConfigError(f"item ids are {self.item_ids!r}; expected one of {', '.join(ITEM_IDS)}")
        if self.time_format is not None and columns.time is None:
            raise ConfigError("a time format is given for a log without times; leave out --time-format or --time none")


@dataclass(frozen=True)
class RowReader:
    """Turns rows of a table into canonical ones.

    Attributes:
        columns: the log's columns.
        rules: how they are read.
        key_types: Int64 or String for each key.
        time: the column of times; None without one.
        unit_example: why its numbers are in its unit, with a value and where it is; continues a message.
    """

    columns: LogColumns
    rules: LogRules
    key_types: Mapping[str, pl.DataType]
    time: TimeColumn | None
    unit_example: str = ""

    def read(self, raw: pl.DataFrame, path: Path) -> pl.DataFrame:
        """Canonical rows.

        Returns:
            The keys (Int64 or String), `time` (Int64), `number` (line or row of the file), `problem` (String, null for
            a good row) with its `VALUE`, `TRIMMED`, `KEEP`, whether the rules keep the row, and `EVENT`.

        Raises:
            DataError: if a column can't be read because of its type.
        """
        named, schema = self.columns.named(), raw.schema
        kinds = {key: schema[name] for key, name in named.items()}
        columns = [key_column(named[key], kinds[key], kind, path).alias(key) for key, kind in self.key_types.items()]
        times = pl.lit(0, pl.Int64) if self.time is None else pl.lit(self.time.microseconds(raw[self.time.name]))
        columns.append(times.alias("time"))
        if self.columns.event is not None:
            columns.append(key_column(self.columns.event, kinds["event"], pl.String(), path).alias(EVENT))
        spaces = [
            pl.col(named[key]).str.contains(r"^\s|\s$").fill_null(False)
            for key in self.key_types
            if kinds[key] == pl.String
        ]
        columns.append(pl.any_horizontal(pl.lit(False), *spaces).alias(TRIMMED))
        columns += [pl.col(name).alias(_raw(key)) for key, name in named.items()]
        rows = raw.select(*columns, pl.col(LINE).alias("number"), MALFORMED)
        if self.rules.item_ids == "number":
            rows = rows.with_columns(item_number(pl.col("item"), rows.schema["item"]))
        rows = rows.with_columns(self._kept(kinds).alias(KEEP))
        problem, value = first_problem([*self._key_checks(kinds), *self._other_checks(rows, kinds)])
        return rows.select(
            *self.key_types,
            "time",
            "number",
            # What a row says that the rules leave out does not matter.
            pl.coalesce(MALFORMED, pl.when(KEEP).then(problem)).alias("problem"),
            value.alias(VALUE),
            TRIMMED,
            KEEP,
            *([EVENT] if self.columns.event is not None else []),
        )

    def _kept(self, kinds: Mapping[str, pl.DataType]) -> pl.Expr:
        """Whether the rules keep a row; one whose value is no number is kept, and a bad row."""
        kept = [pl.lit(True)]
        if self.rules.events:
            kept.append(pl.col(EVENT).is_in(list(self.rules.events)).fill_null(False))
        if self.columns.value is not None:
            kept.append((_number(kinds["value"]) >= self.rules.min_value).fill_null(_is_given("value", kinds["value"])))
        return pl.all_horizontal(kept)

    def _key_checks(self, kinds: Mapping[str, pl.DataType]) -> Iterator[Check]:
        for key, wanted in self.key_types.items():
            name, empty = f"{key} (column {self.columns.named()[key]!r})", pl.col(key).is_null()
            if may_be_lost(kinds[key]):
                raw = pl.col(_raw(key))
                given = raw.is_not_null() & (raw.is_not_nan() if kinds[key].is_float() else True)
                yield empty & given, f"{name} is neither a whole number nor text", key
            if wanted == pl.String:
                damaged = pl.col(key).cast(pl.String).str.contains(REPLACED, literal=True)
                yield damaged.fill_null(False), f"{name} is {NOT_UTF8}", key
            if key == "item" and self.rules.item_ids == "number":
                yield empty, f"{name} is not a whole number from 1 to 2^63 - 1", key
            elif key != "category":
                yield empty, f"empty {name}", None
            if key == "item" and wanted == pl.String:
                text = pl.col(key).cast(pl.String)
                long = (text.str.len_bytes() > MAX_ID_BYTES) | text.str.contains("\0", literal=True)
                yield long, f"{name} is longer than {MAX_ID_BYTES} bytes or has a NUL", key

    def _other_checks(self, rows: pl.DataFrame, kinds: Mapping[str, pl.DataType]) -> Iterator[Check]:
        if self.columns.value is not None:
            name = f"value (column {self.columns.value!r})"
            yield (
                _is_given("value", kinds["value"]) & _number(kinds["value"]).is_null(),
                f"{name} is no number",
                "value",
            )
        if self.time is not None and rows["time"].null_count():
            name, missing = f"time (column {self.time.name!r})", pl.col("time").is_null()
            if self.time.form is not None:
                yield missing, f"{name} is not as {self.time.form!r}", "time"
                return
            written = unit_of(as_number(pl.col(_raw("time")), kinds["time"]))
            for unit in UNITS:  # a number that is null here is not in the column's own
                reason = f"{name} {ANOTHER_UNIT} {unit}; expected {self.time.unit}"
                yield missing & (written == unit), f"{reason}{self.unit_example}", "time"
            yield missing, f"{name} is neither a number of {self.time.unit} nor an ISO timestamp", "time"


Check = tuple[pl.Expr, str, str | None]
"""Whether a row has a problem, the reason, and the canonical name of the column whose value is to be shown."""


def first_problem(checks: Iterable[Check]) -> tuple[pl.Expr, pl.Expr]:
    """The reason of the first check that is true and the value as text, both null if none is."""
    reasons, values = [pl.lit(None, pl.String)], [pl.lit(None, pl.String)]
    for wrong, reason, key in checks:
        reasons.append(pl.when(wrong).then(pl.lit(reason)))
        shown = pl.lit("") if key is None else pl.col(_raw(key)).cast(pl.String, strict=False).fill_null("")
        values.append(pl.when(wrong).then(shown))
    return pl.coalesce(reasons), pl.coalesce(values)


def exploded(rows: pl.DataFrame, lists: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """One row for each element of the list columns, in order, and how many rows had empty lists.

    Rows whose lists differ in length become one malformed row.
    """
    if not lists:
        return rows, 0
    lengths = [pl.col(name).list.len() for name in lists]
    differ = pl.any_horizontal(pl.lit(False), *(length != lengths[0] for length in lengths[1:])).fill_null(True)
    wrong = rows.filter(differ & pl.col(MALFORMED).is_null())
    wrong = wrong.with_columns(pl.col(lists).list.first(), pl.lit(LISTS_DIFFER).alias(MALFORMED))
    right = rows.filter(~differ | pl.col(MALFORMED).is_not_null())
    filled = right.filter((lengths[0] > 0).fill_null(True))
    together = pl.concat([filled.explode(lists), wrong]).sort(LINE, maintain_order=True)
    return together, right.height - filled.height


def _raw(key: str) -> str:
    return f"__raw_{key}"


def _number(kind: pl.DataType) -> pl.Expr:
    """The value as a finite Float64, else null."""
    raw = pl.col(_raw("value"))
    number = (raw.str.strip_chars() if kind == pl.String else raw).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _is_given(key: str, kind: pl.DataType) -> pl.Expr:
    raw = pl.col(_raw(key))
    return (raw.str.strip_chars() != "").fill_null(False) if kind == pl.String else raw.is_not_null()
