"""The rate limit windows of a host, in headers and enforced."""

from __future__ import annotations

from backfill_dagster.localnet import LocalnetOptions, LocalNetwork, RateLimits
from backfill_dagster_tests.localnet.client import client_of

GET_REPO = "com.atproto.sync.getRepo"


class Clock:
    """A clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def statuses(limits: RateLimits, clock: Clock) -> list[int]:
    options = LocalnetOptions(hosts=1, repos=1, median_records=3, states={}, rate_limits=limits)
    async with LocalNetwork(options, clock=clock) as network, client_of(network) as client:
        out = [(await client.repo(network.dids[0])).status for _ in range(3)]
        clock.now += limits.window_seconds
        return [*out, (await client.repo(network.dids[0])).status]


async def test_by_default_nothing_is_enforced_but_the_headers_count() -> None:
    assert await statuses(RateLimits(get_repo=2), Clock()) == [200, 200, 200, 200]


async def test_an_enforced_window_refuses_and_opens_again() -> None:
    assert await statuses(RateLimits(get_repo=2, enforce=True), Clock()) == [200, 200, 429, 200]


async def test_get_repo_has_its_own_bucket_and_head_counts() -> None:
    clock = Clock()
    options = LocalnetOptions(
        hosts=1,
        repos=1,
        median_records=3,
        states={},
        rate_limits=RateLimits(get_repo=1, other=2, window_seconds=10, enforce=True),
    )
    async with LocalNetwork(options, clock=clock) as network, client_of(network) as client:
        did = network.dids[0]
        first = await client.repo(did)
        assert {name: value for name, value in first.headers.items() if "ratelimit" in name} == {
            "ratelimit-limit": "1",
            "ratelimit-remaining": "0",
            "ratelimit-reset": "1010",
            "ratelimit-policy": "1;w=10",
        }
        clock.now += 4
        second = await client.repo(did)
        assert (second.status, second.json["error"]) == (429, "RateLimitExceeded")
        assert second.headers["retry-after"] == "6"
        url = f"{network.hosts[0].url}/xrpc/com.atproto.sync.getLatestCommit"
        async with client.session.head(url, params={"did": did}) as response:
            assert response.status == 200
        assert (await client.xrpc(0, "com.atproto.sync.getRepoStatus", did=did)).status == 200
        assert (await client.xrpc(0, "com.atproto.sync.getRepoStatus", did=did)).status == 429


async def test_a_host_without_headers_answers_with_plain_html() -> None:
    limits = RateLimits(get_repo=0, enforce=True, headers=False)
    options = LocalnetOptions(hosts=1, repos=1, median_records=3, states={}, rate_limits=limits)
    async with LocalNetwork(options) as network, client_of(network) as client:
        got = await client.repo(network.dids[0])
        assert (got.status, got.headers["content-type"]) == (429, "text/html")
        assert not [name for name in got.headers if "ratelimit" in name or "retry" in name]
