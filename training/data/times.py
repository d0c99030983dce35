"""Times as logs write them, as microseconds since 1970: numbers in one unit, timestamps and text."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from nann.errors import ConfigError, DataError

MICROSECONDS = 1_000_000
"""In a second."""

UNITS = {"seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17, "nanoseconds": float(1 << 63)}
"""Unit -> the least number that is too large for it: about the year 5000. It is at least 1973 in the next unit."""

_PER_UNIT = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0, "nanoseconds": 1e-3}

# ISO 8601, extended and basic, and what databases write: a blank for the T, hours alone as an offset, "UTC".
_ISO = (
    r"(?i)^(\d{4})[-/]?(\d{2})[-/]?(\d{2})"
    r"(?:[T ](\d{2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9})\d*)?)?)?"
    r" ?(Z|UTC|GMT|([+-])(\d{2}):?(\d{2})?)?)?$"
)


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
                pl.Series(["x"]).str.to_datetime(self.form, strict=False)
            except pl.exceptions.PolarsError as error:
                why = str(error).splitlines()[0]
                raise ConfigError(
                    f"time format {self.form!r} can't be used ({why}); expected one such as %d.%m.%Y %H:%M:%S"
                ) from error

    def microseconds(self, kind: pl.DataType) -> pl.Expr:
        """The column, of a type, as Int64; null where it is not a time, or a number too large for the unit.

        Raises:
            DataError: if its type can't hold times.
        """
        column = pl.col(self.name)
        if self.form is not None:
            return _parsed(column.cast(pl.String).str.strip_chars(), self.form)
        if kind == pl.Date or isinstance(kind, pl.Datetime):
            return column.cast(pl.Datetime("us")).dt.epoch("us")
        if kind != pl.String:
            return self._of_number(_number(column, kind, self.name))
        text = column.str.strip_chars()
        whole, number = text.cast(pl.Int64, strict=False), text.cast(pl.Float64, strict=False)
        others = pl.when(number.is_null()).then(text)
        return pl.coalesce(self._of_number(whole), self._of_number(number), _iso(others))

    def other_unit(self, column: pl.Expr, kind: pl.DataType) -> pl.Expr:
        """Whether values, of a type, are numbers in another unit; true or false."""
        if kind == pl.Date or isinstance(kind, pl.Datetime):
            return pl.lit(False)
        number = _as_float(column, kind, self.name)
        return (unit_of(number) != self.unit).fill_null(False)

    def described(self, sample: pl.Series) -> str:
        """How some times are read, in words."""
        kind = sample.dtype
        if self.form is not None:
            return f"text as {self.form!r}"
        if kind == pl.Date or isinstance(kind, pl.Datetime):
            return str(kind)
        numbers = pl.DataFrame({"time": sample}).select(_as_float(pl.col("time"), kind, self.name)).to_series()
        texts = sample.filter(numbers.is_null())
        ways = [f"{self.unit} since 1970"] if numbers.len() > texts.len() else []
        if texts.len():
            zoned = texts.str.contains(r"(?i)(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)\s*$").all()
            ways.append("ISO 8601 text" + ("" if zoned else ", UTC where no zone is given"))
        return " and ".join(ways)

    def _of_number(self, number: pl.Expr) -> pl.Expr:
        inside = pl.when((unit_of(number) == self.unit) | (number == 0)).then(number)
        scale = _PER_UNIT[self.unit]
        scaled = inside * int(scale) if scale >= 1 else inside // 1000
        return scaled.round().cast(pl.Int64, strict=False)


def unit_of(number: pl.Expr) -> pl.Expr:
    """The unit that a number's size tells; null for 0, which is 1970 in all of them, and for what is too large."""
    size = number.cast(pl.Float64).abs()
    unit = pl.lit(None, pl.String)
    for name, limit in reversed(UNITS.items()):
        unit = pl.when(size < limit).then(pl.lit(name)).otherwise(unit)
    return pl.when((size > 0) & size.is_finite()).then(unit)


def common_unit(values: pl.Series) -> str:
    """The unit of most numbers of a sample; seconds if it has none."""
    kind = values.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        return "seconds"
    frame = pl.DataFrame({"time": values}).select(unit_of(_as_float(pl.col("time"), kind, values.name)).alias("unit"))
    counts = (
        frame.drop_nulls().group_by("unit", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    )
    return str(counts["unit"][0]) if counts.height else "seconds"


def parse_time(text: str) -> int | None:
    """A time as a log may write it, in microseconds since 1970; None if it is not a time."""
    values = pl.Series("time", [text])
    column = TimeColumn("time", common_unit(values))
    moment: int | None = values.to_frame().select(column.microseconds(values.dtype)).item()
    return moment


def shown_time(microseconds: int) -> str:
    """Microseconds since 1970 as people read them, UTC."""
    text: str = pl.Series([microseconds]).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d %H:%M:%S")[0]
    return text


def _as_float(column: pl.Expr, kind: pl.DataType, name: str) -> pl.Expr:
    text = column.str.strip_chars() if kind == pl.String else _number(column, kind, name)
    return text.cast(pl.Float64, strict=False)


def _number(column: pl.Expr, kind: pl.DataType, name: str) -> pl.Expr:
    if kind.is_integer():
        return column.cast(pl.Int64, strict=False)
    if kind.is_float() or kind.is_decimal():
        return column.cast(pl.Float64)
    raise DataError(f"column {name!r} has type {kind}; expected numbers, timestamps or text as times")


def _parsed(text: pl.Expr, form: str) -> pl.Expr:
    zone = "UTC" if "%z" in form else None
    return text.str.to_datetime(form, time_unit="us", time_zone=zone, strict=False).dt.epoch("us")


def _iso(text: pl.Expr) -> pl.Expr:
    part = text.str.extract_groups(_ISO).struct.field
    clock = [part(str(place)).fill_null("00") for place in (4, 5, 6)]
    moment = pl.concat_str(
        [pl.concat_str([part(str(place)) for place in (1, 2, 3)], separator="-"), pl.concat_str(clock, separator=":")],
        separator=" ",
    )
    moment = moment + "." + part("7").fill_null("0")
    hours, minutes = part("10").cast(pl.Int64), part("11").fill_null("00").cast(pl.Int64)
    seconds = pl.when((hours < 24) & (minutes < 60)).then((hours * 60 + minutes) * 60)
    ahead = pl.when(part("9") == "-").then(-seconds).when(part("9") == "+").then(seconds).otherwise(0)
    return _parsed(moment, "%Y-%m-%d %H:%M:%S%.f") - ahead * MICROSECONDS
