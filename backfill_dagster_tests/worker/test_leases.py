"""One shard, one run; one host, one run: who comes second is told who works there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.errors import FencedError, InterruptedRunError, LeaseHeldError
from backfill_dagster.ledger import Lease, LeaseTable
from backfill_dagster.localnet import Fault
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.leases import _Taking, held_leases
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.test_stopping import Progress, settled
from backfill_dagster_tests.worker.tiny import (
    assert_released,
    assert_sound,
    only_shard,
    run_one,
    shard_keys,
    state_of,
    tiny,
)

SOON = {"lease_seconds": 3}


@asynccontextmanager
async def at_work(state: BackfillState, key: str, dids: int) -> AsyncIterator[None]:
    """A run that has ended so many DIDs and waits for a stalled one."""
    progress = Progress(dids)
    task = asyncio.create_task(run_one(state, key, on_progress=progress, run_id="first"))
    await asyncio.wait_for(progress.reached.wait(), 30)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextmanager
def somebody(table: LeaseTable, name: str, seconds: float = 1) -> Iterator[Lease]:
    with Lease.acquire(table, name, owner="somebody else", run_id="other", lease_seconds=seconds) as lease:
        yield lease


async def test_two_runs_of_one_shard(folder: Path) -> None:
    async with tiny(repos=3) as network:
        await network.set_faults([Fault(kind="stall", did=network.dids[2])])
        with state_of(folder, network, processing=SOON) as state:
            await plan_backfill(state, run_id="plan")
            async with at_work(state, only_shard(state), 2):
                with pytest.raises(LeaseHeldError, match=r"is held by run first of study, pid \d+ on .*; wait for it"):
                    await run_one(state, run_id="second")
            assert_sound(state)
            await network.set_faults([])
            await run_all(state)
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_two_shards_of_one_host(folder: Path) -> None:
    async with tiny(repos=4) as network:
        await network.set_faults([Fault(kind="stall", did=network.dids[1])])
        with state_of(folder, network, processing=SOON | {"shard_size": 2}) as state:
            await plan_backfill(state, run_id="plan")
            first, second = shard_keys(state)
            host = first.split("~")[0]
            async with at_work(state, first, 1):
                with pytest.raises(LeaseHeldError, match=rf"^{host} is held by run first of study"):
                    await run_one(state, second)
            assert_released(state)


async def test_one_host_in_two_backfills(folder: Path) -> None:
    async with tiny(repos=2) as network:
        await network.set_faults([Fault(kind="stall", did=network.dids[1])])
        with (
            state_of(folder, network, name="other", processing=SOON) as other,
            state_of(folder, network, processing=SOON) as state,
        ):
            await plan_backfill(other, run_id="plan")
            async with held_by(other):
                came = await run_all(state)
                assert came.done.results == {}
                assert list(came.done.held) == [only_shard(state)]
                assert "is held by run first of other" in came.done.held[only_shard(state)]
                assert set(came.outcomes.values()) == {"pending"}
            await network.set_faults([])
            assert set((await run_all(state)).outcomes.values()) == {"complete"}


def held_by(other: BackfillState) -> Any:
    return at_work(other, only_shard(other), 1)


async def test_a_held_host_is_left_out_and_the_others_are_worked_on(folder: Path) -> None:
    async with tiny(repos=6, hosts=3) as network:
        with state_of(folder, network, processing=SOON | {"shard_size": 1}) as state:
            await plan_backfill(state, run_id="plan")
            keys = shard_keys(state)
            host = keys[0].split("~")[0]
            with somebody(state.host_leases[0], host):
                came = await run_all(state)
                assert list(came.done.held) == [keys[0]]
                assert came.done.held[keys[0]].startswith(f"{host} is held by somebody else;")
                assert sorted(came.done.results) == sorted(key for key in keys if not key.startswith(host))
                assert sorted(came.outcomes.values()) == ["complete"] * 4 + ["pending"] * 2
            assert set((await run_all(state)).outcomes.values()) == {"complete"}
            assert_sound(state)


async def test_a_held_shard_gives_the_host_back(folder: Path) -> None:
    async with tiny(repos=1) as network:
        with state_of(folder, network, processing=SOON) as state:
            await plan_backfill(state, run_id="plan")
            with somebody(state.ledger.leases, f"study/{only_shard(state)}"):
                with pytest.raises(LeaseHeldError, match="is held by somebody else"):
                    await run_one(state)
                host = state.host_leases[0].read(only_shard(state).split("~")[0])
                assert host is not None
                assert host.released


async def test_epochs_grow_and_never_fall_behind_the_log(folder: Path) -> None:
    async with tiny(repos=1) as network:
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            shard = only_shard(state)
            async with held_leases(state, shard, None, "one", at_least_epoch=7) as leases:
                assert leases.epoch == 7
                assert leases.hosts == ()
                leases.check()
            with pytest.raises(FencedError, match="was released"):
                leases.check()
            async with held_leases(state, shard, shard.split("~")[0], "two", at_least_epoch=3) as leases:
                assert leases.epoch == 8
                [host] = leases.hosts
                leases.check()
                host.release()
                with pytest.raises(FencedError, match="was released"):
                    leases.check()


def test_a_lease_that_comes_too_late_is_let_go() -> None:
    """The run was stopped in the moment between the lease's coming and its being handed over."""
    released: list[str] = []

    class Late:
        def release(self) -> None:
            released.append("late")

    def acquire(**_: object) -> Any:
        taking.let_go()
        return Late()

    taking = _Taking(acquire)
    with pytest.raises(InterruptedRunError, match="was stopped while it waited for a lease"):
        taking.take()
    assert released == ["late"]


async def test_stopped_while_it_waits_for_a_lease(folder: Path) -> None:
    """Neither does the stop wait for the lease, nor is a lease taken that nobody will let go."""
    async with tiny(repos=1) as network:
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            host = only_shard(state).split("~")[0]
            with somebody(state.host_leases[0], host, 3600):
                task = asyncio.create_task(run_one(state))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(task, 5)
            await settled(state)
            assert_released(state)
