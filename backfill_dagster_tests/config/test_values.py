"""What each kind of value accepts, and what the key makes of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from backfill_dagster.config import BackfillConfig
from backfill_dagster_tests.config.samples import build, problems_of

ENTRY = "the NSID of a collection (app.bsky.feed.post) or a whole namespace (app.bsky.feed.*)"


def processing(key: str, value: Any) -> object:
    return getattr(build(processing={key: value}).processing, key)


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("batch_size", 1, 1),
        ("batch_size", 10_000, 10_000),
        ("batch_size", "500", 500),
        ("batch_size", " 1_000 ", 1000),
        ("requests_per_second", 3, 3.0),
        ("requests_per_second", "2.5", 2.5),
        ("requests_per_second", "1e2", 100.0),
        ("requests_per_second", ".5", 0.5),
        ("total_requests_per_second", "1_000", 1000.0),
        ("total_requests_per_second", None, None),
        ("allow_private_hosts", True, True),
        ("allow_private_hosts", "Yes", True),
        ("allow_private_hosts", "off", False),
        ("verify", "off", "off"),
        ("max_retries", 0, 0),
        ("user_agent_contact", "data-team@example.org", "data-team@example.org"),
    ],
)
def test_values_that_are_accepted(key: str, value: Any, read: object) -> None:
    assert processing(key, value) == read
    assert type(processing(key, value)) is type(read)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("batch_size", 0, "0"),
        ("batch_size", 10_001, "10001"),
        ("batch_size", -1, "-1"),
        ("batch_size", True, "true"),
        ("batch_size", 1.5, "1.5"),
        ("batch_size", "ten", '"ten"'),
        ("batch_size", "1_0", '"1_0"'),
        ("batch_size", None, "nothing"),
        ("batch_size", [1], "a list of 1"),
        ("batch_size", {"a": 1}, "a mapping"),
        ("batch_size", 10**400, "1" + "0" * 58 + "…"),
        ("requests_per_second", 0, "0"),
        ("requests_per_second", float("inf"), "Infinity"),
        ("requests_per_second", float("nan"), "NaN"),
        ("requests_per_second", "inf", '"inf"'),
        ("requests_per_second", False, "false"),
        ("allow_private_hosts", 1, "1"),
        ("allow_private_hosts", "maybe", '"maybe"'),
        ("verify", False, "false"),
        ("verify", "Full", '"Full"'),
        ("user_agent_contact", "a\r\nX-Evil: 1", '"a\\r\\nX-Evil: 1"'),
        ("user_agent_contact", "me (work)", '"me (work)"'),
        ("user_agent_contact", "  ", '"  "'),
    ],
)
def test_values_that_are_refused(key: str, value: Any, found: str) -> None:
    (problem,) = problems_of(processing={key: value})
    assert problem.startswith(f"backfill.processing.{key}: not accepted, found {found}; accepted: ")


BOUNDS: list[tuple[str, str, float, float]] = [
    ("identity", "requests_per_second", 0.01, 1000),
    ("identity", "cache_days", 0, 3650),
    ("processing", "batch_size", 1, 10_000),
    ("processing", "max_concurrent_pds", 1, 1024),
    ("processing", "requests_per_second", 0.01, 1000),
    ("processing", "total_requests_per_second", 0.01, 100_000),
    ("processing", "max_retries", 0, 20),
    ("processing", "shard_size", 1, 1_000_000),
    ("processing", "concurrent_requests", 1, 256),
    ("processing", "max_repo_mib", 1, 65_536),
    ("processing", "memory_mib", 1, 1_048_576),
    ("processing", "decode_processes", 0, 256),
    ("processing", "since_slack_days", 0, 3650),
    ("processing", "lease_seconds", 1, 3600),
    ("monitoring", "prometheus_port", 1, 65_535),
    ("monitoring", "max_error_rate", 0, 1),
]


@pytest.mark.parametrize(("block", "key", "lowest", "highest"), BOUNDS)
def test_bounds(block: str, key: str, lowest: float, highest: float) -> None:
    for good in (lowest, highest):
        assert getattr(getattr(build(**{block: {key: good}}), block), key) == good
    for bad in (lowest - 1, highest + 1):
        assert len(problems_of(**{block: {key: bad}})) == 1


@pytest.mark.parametrize(
    "url", ["https://plc.directory", "http://127.0.0.1:2582/", "http://[::1]:80", "https://a.b/c/"]
)
def test_urls_lose_their_last_slash(url: str) -> None:
    assert build(identity={"plc_url": url}).identity.plc_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["plc.directory", "ftp://a.b", "https://", "https://u:p@a.b", "https://a.b?x=1", "https://a.b#x", "https://a.b:x",
     "https://a.b:0", "https://a.b:70000", "https://a b", "https://[::1", "https://a.b\\c", 5, None],
)  # fmt: skip
def test_urls_that_are_refused(url: object) -> None:
    (problem,) = problems_of(identity={"plc_url": url})
    assert problem.endswith("accepted: an http:// or https:// URL without user, query and fragment")


def test_an_endpoint_of_s3_has_no_path() -> None:
    """A path would get lost on the way to pyarrow's client."""
    for good in ("http://127.0.0.1:9000", "http://127.0.0.1:9000/"):
        assert build(state={"endpoint_url": good}).state.endpoint_url == good.rstrip("/")
    (problem,) = problems_of(state={"endpoint_url": "http://127.0.0.1:9000/s3"})
    assert problem.endswith("accepted: an http:// or https:// URL without path, user, query and fragment, or null")
    (problem,) = problems_of(source={"type": "s3", "path": "s3://bucket/x", "endpoint_url": "http://127.0.0.1/s3"})
    assert problem.endswith("accepted: an http:// or https:// URL without path, user, query and fragment, or null")
    assert problems_of(storage={"type": "dynamodb", "endpoint_url": "http://127.0.0.1:8100/db"}) == []


@pytest.mark.parametrize("name", ["a", "study_users", "a" + "0" * 62])
def test_names(name: str) -> None:
    assert build(name=name).name == name


@pytest.mark.parametrize("name", ["", "A", "_a", "1a", "a-b", "a" * 64, "a\n", 123, True, None, ["a"]])
def test_names_that_are_refused(name: object) -> None:
    (problem,) = problems_of(name=name)
    assert problem.endswith("accepted: a lower-case letter, then at most 62 of a-z, 0-9 and _")


@pytest.mark.parametrize("version", ["1.0", 1.0, 1])
def test_version_without_quotes_is_the_same(version: object) -> None:
    assert build(version=version).version == "1.0"


@pytest.mark.parametrize("version", ["2.0", 2, True, None, "1"])
def test_other_versions_are_refused(version: object) -> None:
    (problem,) = problems_of(version=version)
    assert problem.endswith('accepted: "1.0"')


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("1970-01-02", 86_400_000_000, 2 * 86_400_000_000 - 1),
        ("1970-01-01T00:00:01Z", 1_000_000, 1_000_000),
        ("1970-01-01 00:01", 60_000_000, 60_000_000),
        ("1970-01-01t00:00:00.000001z", 1, 1),
        ("1970-01-01T02:00:00+02:00", 0, 0),
        ("1969-12-31T19:00:00-05:00", 0, 0),
        ("1970-01-01-00:00:05", 5_000_000, 5_000_000),
        (date(1970, 1, 2), 86_400_000_000, 2 * 86_400_000_000 - 1),
        (datetime(1970, 1, 1, 0, 0, 1), 1_000_000, 1_000_000),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0, 0),
        (datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC), 3_000_000, 3_000_000),
    ],
)
def test_moments(text: object, start: int, end: int) -> None:
    first = build(time_range={"start_date": text}).time_range
    last = build(time_range={"end_date": text}).time_range
    assert first is not None
    assert last is not None
    assert (first.start_us, first.end_us) == (start, None)
    assert (last.start_us, last.end_us) == (None, end)


@pytest.mark.parametrize(
    "text",
    ["2025-13-01", "2025-02-30", "2025-1-2", "20250102", "2025-W01-1", "yesterday", "", 20250102, True,
     "2025-01-02T25:00:00", "2025-01-02-25:00:00", "2025-01-02T00:00:00+25:00", "2025-01-02T", "٢٠٢٥-01-02"],
)  # fmt: skip
def test_moments_that_are_refused(text: object) -> None:
    (problem,) = problems_of(time_range={"start_date": text})
    assert problem.startswith("backfill.time_range.start_date: not accepted, found ")


def test_time_range_may_be_a_single_day_but_not_run_backwards() -> None:
    day = build(time_range={"start_date": "2025-01-02T12:00:00Z", "end_date": "2025-01-02"}).time_range
    assert day is not None
    backwards = {"start_date": "2025-01-03", "end_date": "2025-01-02"}
    assert problems_of(time_range=backwards) == ["backfill.time_range.end_date: end_date is before start_date"]


@pytest.mark.parametrize(
    "cron",
    ["0 * * * *", "*/15 * * * *", " 0 3 * * mon-fri ", "0,30 1-5/2 1 JAN,jul 0", "0 0 29 2 *", "0 0 29 2 mon",
     "5/20 * * * 7", "@daily"],
)  # fmt: skip
def test_crons(cron: str) -> None:
    assert build(schedule={"resume_cron": cron}).schedule.resume_cron == cron.strip()


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8",
     "*/0 * * * *", "5-1 * * * *",
     "a * * * *", "*/ * * * *", "1- * * * *", ", * * * *",
     "0 0 31 2,4 *", "0 0 31 2 mon", "@reboot", "1/x * * * *", "1--2 * * * *", "*-5 * * * *", 5],
)  # fmt: skip
def test_crons_that_are_refused(cron: object) -> None:
    (problem,) = problems_of(schedule={"resume_cron": cron})
    assert problem.startswith("backfill.schedule.resume_cron: not accepted, found ")


def test_schedules_can_be_left_out_one_by_one() -> None:
    schedule = build(schedule={"refresh_cron": None}).schedule
    assert (schedule.resume_cron, schedule.refresh_cron) == ("0 * * * *", None)


@pytest.mark.parametrize(
    "entries",
    [["app.bsky.feed.post"], ["app.bsky.*"], ["app.bsky.feed.post", "app.bsky.feed.*"], ["com.exa-mple.fooBar"]],
)
def test_record_types(entries: list[str]) -> None:
    assert build(record_types=entries).record_types == tuple(entries)


@pytest.mark.parametrize(
    "entry", ["", "post", "app.*", "*", "app.bsky.*.post", "app.bsky.feed.", "app.bsky.feed*", ".*", 5, None]
)
def test_record_types_that_are_refused(entry: object) -> None:
    (problem,) = problems_of(record_types=[entry])
    assert problem.startswith("backfill.record_types[0]: not accepted, found ")
    assert problem.endswith(ENTRY)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([], "backfill.record_types: not accepted, found a list of 0; accepted: a list of at least 1"),
        (None, f"backfill.record_types: not accepted, found nothing; accepted: a list; each: {ENTRY}"),
        ("a.b.c", f'backfill.record_types: not accepted, found "a.b.c"; accepted: a list; each: {ENTRY}'),
        (
            ["a.b.c", "a.b.d", "a.b.c", "a.b.d"],
            "backfill.record_types: entry 3 repeats entry 1; entry 4 repeats entry 2",
        ),
        (["a.b.*", "a.b.all"], "backfill.record_types: entry 2 would have the same asset name as entry 1"),
    ],
)
def test_record_type_lists_that_are_refused(entries: object, problem: str) -> None:
    assert problems_of(record_types=entries) == [problem]


def test_repeated_record_types_are_found_beside_broken_ones() -> None:
    assert [p.partition(";")[0] for p in problems_of(record_types=["x", "a.b.c", "a.b.c"])] == [
        'backfill.record_types[0]: not accepted, found "x"',
        "backfill.record_types: entry 3 repeats entry 2",
    ]


def test_too_many_entries_are_refused() -> None:
    many = [f"a.b.c{n}" for n in range(201)]
    expected = "backfill.record_types: not accepted, found a list of 201; accepted: a list of at most 200"
    assert problems_of(record_types=many) == [expected]


def test_configs_are_frozen() -> None:
    config = build()
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"  # type: ignore[misc]
    assert isinstance(hash(BackfillConfig), int)
