"""A run with a quota ends cleanly when it is used up; the next runs go on, and in the end all is as without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_dagster.config import Quota
from backfill_dagster.localnet import Fault
from backfill_dagster.worker.brake import Brake, Stop
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, rows_in, state_of, tiny


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_requests_are_never_more_than_the_quota(folder: Path, concurrency: int) -> None:
    async with tiny(repos=6) as network:
        with state_of(folder, network, name="unbroken") as whole:
            await run_all(whole)
            expected = rows_in(whole)
        processing = {"concurrent_requests": concurrency, "quota": {"requests": 4}}
        with state_of(folder, network, processing=processing) as state:
            before = network.pds_requests()
            first = await run_all(state)
            (result,) = first.done.results.values()
            assert network.pds_requests() - before == 4
            assert result.numbers.requests == 4
            assert result.stopped == "quota of 4 requests used up"
            assert not result.host_down
            assert result.left == 2
            assert sorted(first.outcomes.values()) == ["complete"] * 4 + ["pending"] * 2
            assert_sound(state)
            second = await run_all(state)
            (result,) = second.done.results.values()
            assert result.numbers.requests == 2
            assert result.stopped is None
            assert set(second.outcomes.values()) == {"complete"}
            assert rows_in(state) == expected
            assert_sound(state)


async def test_hours_end_a_run_too(folder: Path) -> None:
    slow = {"requests_per_second": 0.01, "concurrent_requests": 1, "quota": {"hours": 0.05}}
    async with tiny(repos=5) as network:
        with state_of(folder, network, processing=slow) as state:
            first = await run_all(state)
            (result,) = first.done.results.values()
            assert result.stopped == "quota of 0.05 hours used up"
            assert sorted(first.outcomes.values()) == ["complete"] * 3 + ["pending"] * 2
            assert_sound(state)
            assert set((await run_all(state)).outcomes.values()) == {"complete"}
            assert_sound(state)


async def test_a_quota_that_is_just_enough_stops_nothing(folder: Path) -> None:
    async with tiny(repos=3) as network:
        with state_of(folder, network, processing={"quota": {"requests": 3}}) as state:
            came = await run_all(state)
            (result,) = came.done.results.values()
            assert result.stopped is None
            assert set(came.outcomes.values()) == {"complete"}


async def test_retries_are_requests(folder: Path) -> None:
    async with tiny(repos=3) as network:
        bad = network.dids[0]
        await network.set_faults([Fault(kind="status", status=500, did=bad)])
        processing = {"concurrent_requests": 1, "max_retries": 5, "quota": {"requests": 3}}
        with state_of(folder, network, processing=processing) as state:
            came = await run_all(state)
            (result,) = came.done.results.values()
            assert result.numbers.requests == 3
            assert result.numbers.retries == 2
            assert came.outcomes == {bad: "http_error"} | dict.fromkeys(network.dids[1:], "pending")
            assert fold_of(state).dids[bad][0].attempts == 3
            await network.set_faults([])
            assert set((await run_all(state)).outcomes.values()) == {"complete"}
            assert_sound(state)


async def test_a_quota_ends_waiting_for_a_rate_limit(folder: Path) -> None:
    async with tiny(repos=2) as network:
        await network.set_faults([Fault(kind="rate_limit_html", host=0)])
        with state_of(folder, network, processing={"quota": {"requests": 5}}) as state:
            came = await run_all(state)
            (result,) = came.done.results.values()
            assert result.numbers.requests == 5
            assert result.numbers.rate_limited == 5
            assert set(came.outcomes.values()) == {"pending"}
            assert {one.error_code for one, _ in fold_of(state).dids.values()} == {"RateLimited"}
            assert_sound(state)


def test_the_first_reason_stays() -> None:
    time = InstantTime()
    brake = Brake(Quota(requests=1, hours=1), time.effects(), RunNumbers())
    assert brake.may_go_on()
    assert brake.pulled is None
    assert not brake.may_go_on()
    assert brake.pulled == Stop("quota of 1 requests used up")
    time.now = 7200
    brake.pull(Stop("the host is down", host_down=True))
    assert not brake.may_go_on()
    assert brake.pulled == Stop("quota of 1 requests used up")


def test_without_a_quota_only_a_pull_stops() -> None:
    time = InstantTime()
    numbers = RunNumbers(requests=10**9)
    brake = Brake(Quota(), time.effects(), numbers)
    time.now = 1e9
    assert brake.may_go_on()
    brake.pull(Stop("the host is down", host_down=True))
    assert not brake.may_go_on()
