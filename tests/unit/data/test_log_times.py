"""Times of a log: ISO 8601 against datetime, units of numbers, formats of others."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann.errors import ConfigError, DataError
from nann.training.data.canonical_rows import LogColumns, LogRules
from nann.training.data.custom_log import read_log
from nann.training.data.times import TimeColumn, date_form, parse_time

HEADER = "user,item,time\n"


moments = st.datetimes(datetime(1975, 1, 1), datetime(2099, 12, 31)).map(
    lambda moment: moment.replace(tzinfo=timezone.utc)
)
zones = st.sampled_from(["", "Z", "z", " UTC", "+00", "+02:00", "-0730", " +05:30", "-03"])


def hours_of(zone):
    digits = zone.strip().lstrip("+-").replace(":", "")
    if not digits.isdecimal():
        return 0.0
    return (-1 if "-" in zone else 1) * (int(digits[:2]) + int(digits[2:] or 0) / 60)


@settings(max_examples=200, deadline=None)
@given(
    moments,
    st.sampled_from(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y%m%dT%H%M%S", "%Y-%m-%dt%H:%M", "%Y/%m/%d %H:%M:%S"]),
    zones,
    st.integers(0, 9),
)
def test_iso_8601_against_datetime(moment, form, zone, digits):
    fraction = f".{moment.microsecond:06d}000"[: digits + 1] if digits and form.endswith("S") else ""
    kept = int(f"{fraction[1:]:0<6.6}" or 0)
    local = moment.replace(microsecond=kept, second=moment.second if form.endswith("S") else 0)
    expected = local - timedelta(hours=hours_of(zone))
    text = moment.strftime(form) + fraction + zone
    assert parse_time(text) == (expected - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1), text


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S"])
@pytest.mark.parametrize("kind", [pl.String, pl.Int64, pl.Float64])
def test_dates_as_numbers_are_refused_with_the_option_that_reads_them(tmp_path, scratch, form, kind):
    moments = [datetime(2024, 1, 31, 12, 30, 1, tzinfo=timezone.utc) + timedelta(days=day) for day in range(60)]
    written = pl.Series([None, *(moment.strftime(form) for moment in moments)]).cast(pl.Int64).cast(kind)
    frame = pl.DataFrame({"user": 1, "item": range(1, 62), "time": written})
    frame.write_parquet(tmp_path / "log.parquet")
    example = re.escape(str(written[1]))
    with pytest.raises(
        DataError,
        match=rf"time \(column 'time'\) has dates that are written as numbers, such as {example} \(log.parquet:2\), "
        rf"which are no times since 1970; read them with --time-format {form}$",
    ):
        read_log([tmp_path / "log.parquet"], LogColumns(), scratch, max_bad_share=1)
    rules = LogRules(time_format=form)
    read = read_log([tmp_path / "log.parquet"], LogColumns(), scratch, rules=rules, max_bad_share=0.1)
    expected = [datetime.strptime(moment.strftime(form), form).replace(tzinfo=timezone.utc) for moment in moments]
    assert read.rows.collect()["time"].to_list() == [int(moment.timestamp()) * 1_000_000 for moment in expected]
    assert date_form(pl.Series(["20241331", "20240001", "20240230"])) is None  # months and days that there are not
    assert date_form(pl.Series([1706700601, 1706700602])) is None
    assert parse_time(moments[0].strftime(form)) is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(160_000_000, 4_000_000_000), min_size=1),
    st.sampled_from([1, 10**3, 10**6, 10**9]),
    st.booleans(),
)
def test_the_unit_is_that_of_the_column(seconds, scale, as_text):
    """Zero is 1970 in every unit, and a number of another unit is no time."""
    values = pl.Series("t", [*(value * scale for value in seconds), 0, 1_600_000_000 * (10**6 if scale < 10**6 else 1)])
    values = values.cast(pl.String) if as_text else values
    unit = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}[scale]
    read = TimeColumn("t", unit).microseconds(values).to_list()
    assert read == [*(value * 1_000_000 for value in seconds), 0, None]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (pl.Date, "dates"),
        (pl.Datetime("ms"), "timestamps in UTC: they have no zone"),
        (pl.Datetime("us", "Europe/Berlin"), "timestamps in Europe/Berlin"),
    ],
    ids=str,
)
def test_times_of_parquet_in_words(kind, words):
    assert TimeColumn("t").described(pl.Series("t", [0]).cast(kind)) == words


def test_times_by_format(write, scratch):
    log = write("log.csv", HEADER + "1,2,01.10.2019 12:30\n")
    read = read_log([log], LogColumns(), scratch, rules=LogRules(time_format="%d.%m.%Y %H:%M"))
    assert read.rows.collect()["time"].to_list() == [1569933000_000000]
    assert read.settings["found"]["time"].startswith("text as '%d.%m.%Y %H:%M', from 2019-10-01 12:30:00")
    numbers = write("n.csv", HEADER + "1,2,20191001\n")
    read = read_log([numbers], LogColumns(), scratch, rules=LogRules(time_format="%Y%m%d"))
    assert read.rows.collect()["time"].to_list() == [1569888000_000000]
    with pytest.raises(
        DataError, match=r"time \(column 'time'\) is not as '%Y'. First: log.csv:2 \('01.10.2019 12:30'\)"
    ):
        read_log([log], LogColumns(), scratch, rules=LogRules(time_format="%Y"))
    with pytest.raises(ConfigError, match=r"time format .* can't be used"):
        TimeColumn("t", form="%Q")
