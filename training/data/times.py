"""Times as logs write them, as microseconds since 1970: numbers in one unit, timestamps and text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from nann.errors import ConfigError, DataError

MICROSECONDS = 1_000_000
"""In a second."""

UNITS = {"seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17, "nanoseconds": float(1 << 63)}
"""Unit -> the least number that is too large for it: about the year 5000. It is at least 1973 in the next unit."""

_PER_UNIT = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0, "nanoseconds": 1e-3}

_DATES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Digits -> strftime format of a date that is written as a number."""
_MOST = 0.9

# ISO 8601, extended and basic, and what databases write: a blank for the T, hours alone as an offset, "UTC".
_ISO = (
    r"^([0-9]{4})[-/]?([0-9]{2})[-/]?([0-9]{2})"
    r"(?:[Tt ]([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:[.,]([0-9]{1,9})[0-9]*)?)?)?"
    r" ?([Zz]|[Uu][Tt][Cc]|[Gg][Mm][Tt]|([+-])([0-9]{2}):?([0-9]{2})?)?)?$"
)
_LOCAL = "%Y-%m-%d %H:%M:%S%.f"


@dataclass(frozen=True)
class TimeColumn:
    """How a column of times is read.

    Attributes:
        name: the column.
        unit: of its numbers; a column has one.
        form: strftime format of its values, as with `--time-format`; None: numbers, timestamps and ISO 8601.
    """

    name: str
    unit: str = "seconds"
    form: str | None = None

    def __post_init__(self) -> None:
        if self.form is not None:
            try:
                moment = pl.Series([0]).cast(pl.Datetime("us", "UTC"))
                moment.dt.strftime(self.form.replace("%#z", "%z"))
            except pl.exceptions.PolarsError as error:
                why = str(error).splitlines()[0]
                raise ConfigError(
                    f"time format {self.form!r} can't be used ({why}); expected one such as %d.%m.%Y %H:%M:%S"
                ) from error

    def microseconds(self, values: pl.Series) -> pl.Series:
        """The column's values as Int64; null where one is not a time, or a number in another unit.

        Raises:
            DataError: if their type can't hold times.
        """
        if self.form is not None:
            return _parsed(_written(values), self.form)
        if _is_timestamp(values.dtype):
            moments: pl.Series = values.cast(pl.Datetime("us")).dt.epoch("us")
            return moments
        if values.dtype != pl.String:
            return self._of_numbers(_numbers(values, self.name))
        text = values.str.strip_chars()
        times = self._of_numbers(text.cast(pl.Int64, strict=False))
        # Each form is tried on what the ones before could not read.
        times = _filled(times, text, lambda rest: self._of_numbers(rest.cast(pl.Float64, strict=False)))
        times = _filled(times, text, _extended)
        return _filled(times, text, _any_iso)

    def described(self, sample: pl.Series) -> str:
        """How some times are read, in words."""
        if self.form is not None:
            return f"text as {self.form!r}"
        if _is_timestamp(sample.dtype):
            zone = getattr(sample.dtype, "time_zone", None)
            return "dates" if sample.dtype == pl.Date else f"timestamps in {zone or 'UTC: they have no zone'}"
        texts = sample.filter(_numbers(sample, self.name).is_null())
        ways = [f"{self.unit} since 1970"] if len(texts) < len(sample) else []
        if len(texts):
            zoned = texts.str.contains(r"(?i)[T ].*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)\s*$").all()
            ways.append("ISO 8601 text" + ("" if zoned else ", UTC where no zone is given"))
        return " and ".join(ways)

    def _of_numbers(self, numbers: pl.Series) -> pl.Series:
        number, scale = pl.col("number"), _PER_UNIT[self.unit]
        inside = pl.when((unit_of(number) == self.unit) | (number == 0)).then(number)
        scaled = (inside * int(scale) if scale >= 1 else inside // 1000).round().cast(pl.Int64, strict=False)
        return numbers.to_frame("number").select(scaled).to_series()


def as_number(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """Values of a type that times may have, as Float64; null where one is no number."""
    if _is_timestamp(kind):
        return pl.lit(None, pl.Float64)
    return (column.str.strip_chars() if kind == pl.String else column).cast(pl.Float64, strict=False)


def unit_of(number: pl.Expr) -> pl.Expr:
    """The unit that a number's size tells; null for 0, which is 1970 in all of them, and for what is too large."""
    size = number.cast(pl.Float64).abs()
    unit = pl.lit(None, pl.String)
    for name, limit in reversed(UNITS.items()):
        unit = pl.when(size < limit).then(pl.lit(name)).otherwise(unit)
    return pl.when((size > 0) & size.is_finite()).then(unit)


def common_unit(values: pl.Series) -> str:
    """The unit of most numbers of a sample; seconds if it has none."""
    if _is_timestamp(values.dtype):
        return "seconds"
    units = _numbers(values, values.name).to_frame("time").select(unit_of(pl.col("time")).alias("unit")).drop_nulls()
    counts = units.group_by("unit", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    return str(counts["unit"][0]) if counts.height else "seconds"


def date_form(values: pl.Series) -> str | None:
    """The strftime format of numbers that are dates from 1990 to 2100, 20240131; None if most are no such numbers.

    As seconds or milliseconds since 1970 they would be days of 1970 or 1976, or the 27th century.
    """
    if not (values.dtype.is_numeric() or values.dtype == pl.String):
        return None
    texts = _written(values.drop_nulls())
    for digits, form in _DATES.items():
        alike = texts.filter(texts.str.contains(rf"^(?:199[0-9]|20[0-9]{{2}}|2100)[0-9]{{{digits - 4}}}$"))
        if len(alike) and len(_parsed(alike, form).drop_nulls()) > _MOST * len(texts):
            return form
    return None


def parse_time(text: str) -> int | None:
    """A time as a log may write it, in microseconds since 1970; None if it is not a time, or a date as a number."""
    values = pl.Series("time", [text])
    if date_form(values):
        return None
    moment: int | None = TimeColumn("time", common_unit(values)).microseconds(values)[0]
    return moment


def shown_time(microseconds: int) -> str:
    """Microseconds since 1970 as people read them, UTC."""
    text: str = pl.Series([microseconds]).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d %H:%M:%S")[0]
    return text


def _is_timestamp(kind: pl.DataType) -> bool:
    return kind == pl.Date or isinstance(kind, pl.Datetime)


def _numbers(values: pl.Series, name: str) -> pl.Series:
    """Numbers, or texts that are, as Int64 or Float64; null for others."""
    kind = values.dtype
    if not (kind.is_numeric() or kind == pl.String):
        raise DataError(f"column {name!r} has type {kind}; expected numbers, timestamps or text as times")
    plain = values.str.strip_chars() if kind == pl.String else values
    numbers: pl.Series = plain.cast(pl.Int64 if kind.is_integer() else pl.Float64, strict=False)
    return numbers


def _written(values: pl.Series) -> pl.Series:
    """Values as text; whole floats, which columns of numbers with gaps often are, as whole numbers."""
    whole = values.cast(pl.Int64, strict=False) if values.dtype.is_float() else values
    texts: pl.Series = whole.cast(pl.String).str.strip_chars()
    return texts


def _filled(times: pl.Series, text: pl.Series, read: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """The times, with those that `read` finds in the texts that have none yet."""
    missing = times.is_null() & text.is_not_null()
    if not missing.any():
        return times
    places = missing.arg_true()
    filled: pl.Series = times.clone().scatter(places, read(text.gather(places)))
    return filled


def _parsed(text: pl.Series, form: str) -> pl.Series:
    zone = "UTC" if "%z" in form or "%#z" in form else None
    return text.str.to_datetime(form, time_unit="us", time_zone=zone, strict=False).dt.epoch("us")


def _extended(text: pl.Series) -> pl.Series:
    """The most common forms, quickly: dates with hyphens, times with colons and seconds."""
    spaced = text.str.replace("T", " ", literal=True)
    return _filled(_parsed(spaced.str.strip_suffix("Z"), _LOCAL), spaced, lambda rest: _parsed(rest, f"{_LOCAL}%#z"))


def _any_iso(text: pl.Series) -> pl.Series:
    """All forms."""
    part = text.str.extract_groups(_ISO).struct
    year, month, day, hour, minute, second, fraction, _, sign, ahead, more = (part.field(str(i)) for i in range(1, 12))
    clock = [value.fill_null("00") for value in (hour, minute, second)]
    frame = pl.DataFrame(
        {
            "moment": year
            + "-"
            + month
            + "-"
            + day
            + " "
            + clock[0]
            + ":"
            + clock[1]
            + ":"
            + clock[2]
            + "."
            + fraction.fill_null("0"),
            "sign": sign,
            "hours": ahead.cast(pl.Int64),
            "minutes": more.fill_null("00").cast(pl.Int64),
        }
    )
    hours, minutes = pl.col("hours"), pl.col("minutes")
    offset = pl.when((hours < 24) & (minutes < 60)).then((hours * 60 + minutes) * 60 * MICROSECONDS)
    ahead_of_utc = pl.when(pl.col("sign") == "-").then(-offset).when(pl.col("sign") == "+").then(offset).otherwise(0)
    utc: pl.Series = _parsed(frame["moment"], _LOCAL) - frame.select(ahead_of_utc).to_series()
    return utc
