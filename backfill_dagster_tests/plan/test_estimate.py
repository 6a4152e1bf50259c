"""What a plan costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.plan.estimate import Estimate, estimate


def hours(by_host: dict[str, int], rate: float = 1.0, at_once: int = 32, total: float | None = None) -> float:
    return estimate(
        by_host, requests_per_second=rate, max_concurrent_pds=at_once, total_requests_per_second=total
    ).hours


def test_one_request_and_an_average_repo_per_did() -> None:
    cost = estimate({"a": 7200, "b": 3600, "c": 0}, requests_per_second=2, max_concurrent_pds=32)
    assert cost == Estimate(dids=10800, hosts=2, requests=10800, bytes=5_400_000_000, hours=1.0)
    assert cost.to_json() == {
        "dids": 10800, "hosts": 2, "requests": 10800, "bytes": 5_400_000_000, "hours": 1.0
    }  # fmt: skip


def test_the_largest_host_decides() -> None:
    assert hours({"a": 36000, "b": 3600}) == 10


def test_few_hosts_at_once_decide() -> None:
    assert hours({str(host): 3600 for host in range(10)}, at_once=2) == 5


def test_the_total_rate_decides() -> None:
    assert hours({str(host): 3600 for host in range(10)}, total=2.5) == 4


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (Estimate(0, 0, 0, 0, 0), "0 DIDs: nothing to fetch"),
        (Estimate(1, 1, 1, 500_000, 0.00003), "1 DID on 1 host: about 1 request, less than a minute, 0.5 MB"),
        (
            Estimate(12_345, 17, 12_345, 6_172_500_000, 3.2),
            "12,345 DIDs on 17 hosts: about 12,400 requests, 3.2 hours, 6.2 GB",
        ),
        (Estimate(999, 2, 999, 10**9, 0.41), "999 DIDs on 2 hosts: about 999 requests, 25 minutes, 1.0 GB"),
        (Estimate(2, 2, 2, 10**6, 1 / 60), "2 DIDs on 2 hosts: about 2 requests, 1 minute, 1.0 MB"),
        (
            Estimate(40_000_001, 100, 40_000_001, 20 * 10**12, 240),
            "40,000,001 DIDs on 100 hosts: about 40,100,000 requests, 10.0 days, 20.0 TB",
        ),
    ],
)
def test_text(cost: Estimate, text: str) -> None:
    assert cost.text() == text


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 10**6)),
    st.floats(0.1, 100),
    st.integers(1, 64),
    st.none() | st.floats(0.1, 100),
)
def test_no_limit_is_broken(by_host: dict[str, int], rate: float, at_once: int, total: float | None) -> None:
    seconds = hours(by_host, rate, at_once, total) * 3600 * 1.000001
    assert all(count <= seconds * rate for count in by_host.values())
    assert sum(by_host.values()) <= seconds * rate * at_once
    assert total is None or sum(by_host.values()) <= seconds * total
