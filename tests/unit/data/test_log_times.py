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


ISO, MILLISECONDS = "2024-01-01T00:00:00Z", 1704067200000


def test_numbers_of_another_unit_after_text(write, scratch):
    """Numbers after the sample are read as seconds, if the sample has none; the message says why."""
    text = write("a.csv", HEADER + f"1,2,{ISO}\n" * 10)
    numbers = write("b.csv", HEADER + f"1,2,{MILLISECONDS}\n1,2,{MILLISECONDS // 1000}\n")
    log = read_log([text, numbers], LogColumns(), scratch, max_bad_share=0.1)
    assert log.counts.bad_examples == (
        "b.csv:2 (time (column 'time') is a number of milliseconds; expected seconds, as the first rows have no "
        f"numbers but times such as {ISO} (a.csv:2): '{MILLISECONDS}')",
    )
    assert log.rows.collect()["time"].to_list() == [MILLISECONDS * 1000] * 11


def test_numbers_of_another_unit_after_timestamps(tmp_path, scratch):
    moments = pl.Series("time", [MILLISECONDS]).cast(pl.Datetime("ms"))
    pl.DataFrame({"user": 1, "item": 2, "time": moments}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"user": 1, "item": 2, "time": [MILLISECONDS]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        DataError,
        match=r"1 time \(column 'time'\) is a number of milliseconds; expected seconds, as the first rows have no "
        r"numbers but times such as 2024-01-01 00:00:00 \(a.parquet:1\). "
        rf"First: b.parquet:1 \('{MILLISECONDS}'\).* write all times in one unit",
    ):
        read_log([tmp_path], LogColumns(), scratch)


def test_text_beside_numbers_is_read_in_their_unit(write, scratch):
    for name, written in (("a.csv", f"1,2,{ISO}\n1,2,{MILLISECONDS}\n"), ("b.csv", f"1,2,{MILLISECONDS}\n1,2,{ISO}\n")):
        log = read_log([write(name, HEADER + written)], LogColumns(), scratch)
        assert log.rows.collect()["time"].to_list() == [MILLISECONDS * 1000] * 2
        assert log.settings["found"]["time"].startswith("milliseconds since 1970 and ISO 8601 text, from 2024-01-01")


def test_the_unit_is_found_in_the_first_file_with_rows(write, scratch):
    files = [write("a.csv", HEADER), write("b.csv", HEADER + f"1,2,{MILLISECONDS}\n")]
    assert read_log(files, LogColumns(), scratch).rows.collect()["time"].to_list() == [MILLISECONDS * 1000]


def test_dates_as_numbers_beside_other_times_are_refused(write, scratch):
    """As seconds since 1970 they would be days of August 1970."""
    log = write("log.csv", HEADER + f"1,2,{ISO}\n" * 9 + "1,2,20240131\n")
    with pytest.raises(
        DataError,
        match=r"time \(column 'time'\) has dates that are written as numbers, such as 20240131 \(log.csv:11\), and "
        rf"others such as {ISO} \(log.csv:2\); write all of them in one way, such as 2024-01-31$",
    ):
        read_log([log], LogColumns(), scratch)


def test_a_type_without_times_names_the_column(tmp_path, scratch):
    pl.DataFrame({"user": 1, "item": 2, "at": [True]}).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="column 'at' has type Boolean; expected numbers, timestamps or text as times"):
        read_log([tmp_path / "log.parquet"], LogColumns(time="at"), scratch)
