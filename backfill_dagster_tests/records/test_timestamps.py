"""createdAt, TIDs and the old pipelines' text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.datetime import parse_datetime
from backfill_dagster.atproto.tid import tid_from_micros
from backfill_dagster.records import timestamps
from backfill_dagster.records.schema import TIMESTAMP
from backfill_dagster.records.timestamps import (
    YEAR_1_MICROS,
    created_at_micros,
    rkey_micros,
    rkey_times,
    synctimestamps,
)

NOON = 1_704_110_400_000_000


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2024-01-01T12:00:00Z", NOON),
        ("2024-01-01T12:00:00.000Z", NOON),
        ("2024-01-01T12:00:00.5Z", NOON + 500_000),
        ("2024-01-01T12:00:00.123456Z", NOON + 123_456),
        ("2024-01-01T12:00:00.123456789Z", NOON + 123_456),
        ("2024-01-01T14:00:00.000+02:00", NOON),
        ("2024-01-01T00:30:00-11:30", NOON),
        ("2024-01-01T12:00:00+00:00", NOON),
        ("2024-01-01T12:00:00-00:00", None),
        ("2024-01-01T12:00:00", None),
        ("2024-01-01", None),
        ("2024-13-01T12:00:00.000Z", None),
        ("2023-02-29T12:00:00.000Z", None),
        ("2024-01-01t12:00:00.000z", None),
        ("２０２４-01-01T12:00:00.000Z", None),
        ("", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00.000Z", YEAR_1_MICROS),
        ("0000-12-31T23:59:59.999Z", None),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999_000),
    ],
)
def test_created_at_twice_so_that_the_second_answer_may_come_from_the_cache(text: str, micros: int | None) -> None:
    assert created_at_micros(text) == micros
    assert created_at_micros(text) == micros


def mixed_datetimes() -> st.SearchStrategy[str]:
    """Texts put together of parts that are mostly good, so that good parts of other texts are in the cache."""
    days = st.sampled_from(["2024-02-29T", "2023-02-29T", "2024-01-01T", "0000-01-01T", "1969-12-31T", "2024-1-01T"])
    minutes = st.sampled_from(["00:00:", "23:59:", "24:00:", "12:60:", "1:000:"])
    seconds = st.sampled_from(["00", "59", "60", " 1", "1"])
    ends = st.sampled_from(["Z", ".1Z", ".123Z", ".999999Z", ".1234567Z", ".Z", "+01:00", ".5-00:00", "", "z"])
    return st.builds("".join, st.tuples(days, minutes, seconds, ends))


@given(mixed_datetimes())
def test_the_fast_road_says_what_the_parser_says(text: str) -> None:
    expected = parse_datetime(text)
    if expected is not None and expected < YEAR_1_MICROS:
        expected = None
    assert created_at_micros(text) == expected


def test_the_caches_stay_small() -> None:
    first = datetime(1900, 1, 1, tzinfo=UTC)
    for day in range(5000):
        moment = first + timedelta(days=day)
        assert created_at_micros(f"{moment:%Y-%m-%d}T00:00:00.000Z") == round(moment.timestamp() * 1e6)
    assert len(timestamps._day_micros) <= 4096


@pytest.mark.parametrize(
    "rkey", ["self", "", "3k2akz6v2ei2f\n", "z2222222222222", "3K2AKZ6V2EI2F", "3k2akz6v2ei2é", "0" * 13]
)
def test_keys_that_are_no_tids_have_no_time(rkey: str) -> None:
    assert rkey_micros(rkey) is None


@given(st.lists(st.one_of(st.integers(0, 2**53 - 1).map(tid_from_micros), st.text(max_size=14), st.just("self"))))
def test_a_column_of_keys_is_read_like_each_of_them(rkeys: list[str]) -> None:
    rkeys = [one.encode("utf-8", "replace").decode() for one in rkeys]
    times = rkey_times(rkeys, pa.array(rkeys, pa.string()))
    assert times.type == TIMESTAMP
    assert times.cast(pa.int64()).to_pylist() == [rkey_micros(one) for one in rkeys]


def sync(text: str, start: str | None = None, end: str | None = None) -> str | None:
    instants = pa.array([parse_datetime(text)], TIMESTAMP)
    (found,) = synctimestamps(instants, parse_datetime(start), parse_datetime(end)).to_pylist()
    assert found is None or isinstance(found, str)
    return found


@pytest.mark.parametrize(
    ("text", "start", "end", "expected"),
    [
        ("2024-01-20T12:34:56.999Z", None, None, "2024-01-20-12:34:56"),
        ("2024-01-20T23:30:00-02:00", None, None, "2024-01-21-01:30:00"),
        ("1969-12-31T23:59:59.9Z", None, None, "1969-12-31-23:59:59"),
        ("0001-01-01T00:00:00Z", None, None, "0001-01-01-00:00:00"),
        ("2024-01-20T00:00:00Z", "2024-01-20T00:00:00Z", None, "2024-01-20-00:00:00"),
        ("2024-01-20T00:00:00Z", None, "2024-01-20T00:00:00Z", "2024-01-20-00:00:00"),
        ("2024-01-15T23:59:59Z", "2024-02-01T00:00:00Z", None, "2024-01-15-00:00:00"),
        ("2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", None, "2024-01-15-00:00:00"),
        ("2024-01-16T00:00:00Z", "2024-02-01T00:00:00Z", None, "2024-02-01-00:00:00"),
        ("2024-12-31T00:00:00Z", None, "2024-02-01T00:00:00Z", "2025-01-01-00:00:00"),
        ("2024-02-29T00:00:00Z", None, "2024-02-01T00:00:00Z", "2024-03-01-00:00:00"),
        ("9999-12-31T00:00:00Z", None, "2024-02-01T00:00:00Z", "9999-12-15-00:00:00"),
        ("unreadable", None, None, None),
        ("unreadable", "2024-02-01T00:00:00Z", "2025-02-01T00:00:00Z", None),
    ],
)
def test_synctimestamp(text: str, start: str | None, end: str | None, expected: str | None) -> None:
    assert sync(text, start, end) == expected


def test_synctimestamps_are_judged_one_by_one() -> None:
    instants = pa.array([NOON, None, NOON + 86_400_000_000 * 20], TIMESTAMP)
    found = synctimestamps(instants, None, NOON).to_pylist()
    assert found == ["2024-01-01-12:00:00", None, "2024-02-01-00:00:00"]
