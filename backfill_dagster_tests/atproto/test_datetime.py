"""Datetimes of records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.datetime import YEAR_0_MICROS, is_datetime, parse_datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:01.9999999999999Z", 1_999_999),
        ("1969-12-31T23:59:59.5Z", -500_000),
        ("1985-04-12T23:20:50.123Z", 482_196_050_123_000),
        ("1985-04-12T23:20:50.123-07:00", 482_221_250_123_000),
        ("1985-04-12T23:20:50.123+01:45", 482_189_750_123_000),
        ("1985-04-12T23:20:50.123+00:00", 482_196_050_123_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("0000-01-01T00:00:00.000Z", YEAR_0_MICROS),
        ("0000-02-29T00:00:00.000Z", YEAR_0_MICROS + 59 * 86_400_000_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("0001-01-01T00:00:00+01:00", -62_135_600_400_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_times(text: str, micros: int) -> None:
    assert parse_datetime(text) == micros
    assert is_datetime(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1985-04-12",
        "1985-04-12T23:20Z",
        "1985-04-12T23:20:50",
        "1985-04-12T23:20:50.Z",
        "1985-04-12t23:20:50Z",
        "1985-04-12T23:20:50z",
        "1985-04-12 23:20:50Z",
        "1985-04-12T23:20:50-00:00",
        "1985-04-12T23:20:50+0000",
        "1985-04-12T23:20:50+00",
        "1985-4-12T23:20:50Z",
        " 1985-04-12T23:20:50Z",
        "1985-04-12T23:20:50Z\n",
        "1985-00-12T23:20:50Z",
        "1985-13-12T23:20:50Z",
        "1985-04-00T23:20:50Z",
        "1985-02-30T23:20:50Z",
        "1985-04-12T24:00:00Z",
        "1985-04-12T23:60:50Z",
        "1985-04-12T23:20:60Z",
        "1985-04-12T23:20:50+24:00",
        "1985-04-12T23:20:50+01:60",
        "+01985-04-12T23:20:50Z",
        "-0001-04-12T23:20:50Z",
        "١٩٨٥-04-12T23:20:50Z",
        "2023-02-29T00:00:00Z",
        "0000-02-30T00:00:00Z",
        "1985-04-12T23:20:50.123456789012345678901Z",
        "0000-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "1985-04-12T23:20:50." + "0" * 60 + "Z",
    ],
)
def test_not_times(text: str) -> None:
    assert parse_datetime(text) is None
    assert not is_datetime(text)


@pytest.mark.parametrize("value", [None, 0, 1.5, b"1985-04-12T23:20:50Z", [], {}, True])
def test_what_is_no_text_has_no_time(value: object) -> None:
    assert parse_datetime(value) is None


@given(
    st.datetimes(
        timezones=st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes))),
        min_value=datetime(2, 1, 1),
        max_value=datetime(9998, 1, 1),
    )
)
def test_agrees_with_python(moment: datetime) -> None:
    assert parse_datetime(moment.isoformat()) == (moment - _EPOCH) // timedelta(microseconds=1)


@given(st.text(max_size=70) | st.from_regex(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z"))
def test_never_raises(text: str) -> None:
    micros = parse_datetime(text)
    assert micros is None or micros >= YEAR_0_MICROS
