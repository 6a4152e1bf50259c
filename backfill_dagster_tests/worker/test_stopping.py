"""A run that is told to stop, or that breaks: whole DIDs in hand are kept, nothing lies about, the next run goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backfill_dagster.errors import StateError, UnknownShardError
from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.parts import BatchWriter
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import find_shard, run_backfill, shards_with_work
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, rows_in, run_one, state_of, tiny


@pytest_asyncio.fixture
async def network() -> AsyncIterator[LocalNetwork]:
    async with tiny(repos=5) as network:
        yield network


class Progress:
    """Waits until a run has ended so many DIDs."""

    def __init__(self, dids: int) -> None:
        self._dids = dids
        self.reached = asyncio.Event()

    def __call__(self, numbers: RunNumbers) -> None:
        if numbers.dids_done >= self._dids:
            self.reached.set()


async def stopped_at(state: BackfillState, dids: int) -> None:
    """Run the only shard, and cancel it when so many DIDs have ended."""
    progress = Progress(dids)
    task = asyncio.create_task(run_one(state, on_progress=progress))
    await asyncio.wait_for(progress.reached.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_while_a_host_stalls(folder: Path, network: LocalNetwork) -> None:
    slow = network.dids[2]
    await network.set_faults([Fault(kind="stall", did=slow)])
    with state_of(folder, network) as state:
        await plan_backfill(state, run_id="plan")
        await stopped_at(state, 4)
        fold = fold_of(state)
        assert {one.outcome.value for one, _ in fold.dids.values()} == {"complete"}
        assert set(fold.dids) == set(network.dids) - {slow}
        assert rows_by_author(state.config) == {d: r for d, r in expected_rows(network).items() if d != slow}
        assert_sound(state)
        await network.set_faults([])
        came = await run_all(state)
        (result,) = came.done.results.values()
        assert result.numbers.requests == 1
        assert rows_by_author(state.config) == expected_rows(network)
        assert_sound(state)


async def test_cancelled_while_a_body_is_half_there(folder: Path, network: LocalNetwork) -> None:
    await network.set_faults([Fault(kind="stall_body", did=did) for did in network.dids[1:]])
    with state_of(folder, network, processing={"concurrent_requests": 2}) as state:
        await plan_backfill(state, run_id="plan")
        await stopped_at(state, 1)
        assert set(fold_of(state).dids) == {network.dids[0]}
        assert_sound(state)


async def test_cancelled_before_it_began(folder: Path, network: LocalNetwork) -> None:
    with state_of(folder, network) as state:
        await plan_backfill(state, run_id="plan")
        for turns in range(6):
            task = asyncio.create_task(run_one(state))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await settled(state)
        assert rows_in(state) == set()
        assert_sound(state)
        assert set((await run_all(state)).outcomes.values()) == {"complete"}
        assert_sound(state)


async def settled(state: BackfillState) -> None:
    """Leases that were on their way when their run was cancelled are let go as soon as they come."""
    for _ in range(100):
        try:
            assert_sound(state)
        except AssertionError:
            await asyncio.sleep(0.02)
        else:
            return


async def test_a_whole_backfill_is_cancelled(folder: Path) -> None:
    async with tiny(repos=6, hosts=2) as network:
        slow = [host.dids[0] for host in network.hosts]
        await network.set_faults([Fault(kind="stall", did=did) for did in slow])
        with state_of(folder, network) as state:
            planned = await plan_backfill(state, run_id="plan")
            done: dict[str, int] = {}
            enough = asyncio.Event()

            def on_progress(key: str, numbers: RunNumbers) -> None:
                done[key] = numbers.dids_done
                if sum(done.values()) == 4:
                    enough.set()

            shards = [find_shard(planned.plan, key) for key in planned.plan.shards()]
            work = run_backfill(
                state, planned.plan, load_selection(state.config), shards, run_id="run", on_progress=on_progress
            )
            task = asyncio.create_task(work)
            await asyncio.wait_for(enough.wait(), 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert set(rows_by_author(state.config)) == set(network.dids) - set(slow)
            assert_sound(state)
            await network.set_faults([])
            await run_all(state)
            assert rows_by_author(state.config) == expected_rows(network)


async def test_a_repo_that_is_half_in_when_the_run_is_cancelled_leaves_no_rows(
    folder: Path, network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer thread goes on with what it has begun; if that fails, nobody may commit half a repo."""
    begun, go_on = threading.Event(), threading.Event()
    add_repo = BatchWriter.add_repo

    def half_in(self: BatchWriter, repo: Any, **options: Any) -> Any:
        if repo.did != network.dids[1]:
            return add_repo(self, repo, **options)
        add_repo(self, repo, **options)
        begun.set()
        assert go_on.wait(30)
        raise MemoryError("half in")

    monkeypatch.setattr(BatchWriter, "add_repo", half_in)
    with state_of(folder, network, processing={"concurrent_requests": 1}) as state:
        await plan_backfill(state, run_id="plan")
        task = asyncio.create_task(run_one(state))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_sound(state)
        monkeypatch.undo()
        await run_all(state)
        assert rows_by_author(state.config) == expected_rows(network)
        assert_sound(state)


async def test_a_repo_that_is_being_decoded_when_the_run_is_cancelled_is_kept(
    folder: Path, network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    add_repo = BatchWriter.add_repo

    def slow(self: BatchWriter, repo: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return add_repo(self, repo, **options)

    monkeypatch.setattr(BatchWriter, "add_repo", slow)
    with state_of(folder, network, processing={"concurrent_requests": 1}) as state:
        await plan_backfill(state, run_id="plan")
        task = asyncio.create_task(run_one(state))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        first = network.dids[0]
        assert rows_by_author(state.config) == {first: expected_rows(network)[first]}
        assert_sound(state)


async def test_a_defect_drops_the_batch_in_hand_and_what_was_committed_stands(
    folder: Path, network: LocalNetwork
) -> None:
    def defect(numbers: RunNumbers) -> None:
        if numbers.dids_done == 3:
            raise RuntimeError("a defect")

    with state_of(folder, network, processing={"batch_size": 2, "concurrent_requests": 1}) as state:
        await plan_backfill(state, run_id="plan")
        with pytest.raises(RuntimeError, match="a defect"):
            await run_one(state, on_progress=defect)
        assert set(fold_of(state).dids) == set(network.dids[:2])
        assert_sound(state)
        await run_all(state)
        assert rows_by_author(state.config) == expected_rows(network)


async def test_unknown_shards_are_answered_with_the_known_ones(folder: Path, network: LocalNetwork) -> None:
    with state_of(folder, network, processing={"shard_size": 1}) as state:
        with pytest.raises(UnknownShardError, match="the plan has no shards yet, run the plan first"):
            find_shard(PlanStore(state.store).read(), "host~0000")
        plan = (await plan_backfill(state, run_id="plan")).plan
        keys = list(plan.shards())
        with pytest.raises(UnknownShardError, match=f"unknown shard 'nonsense'; the plan has {', '.join(keys)}$"):
            find_shard(plan, "nonsense")
        scope = load_selection(state.config).scope
        assert [shard.key for shard in shards_with_work(state, plan, scope, keys[1:3])] == keys[1:3]


class FullStore:
    """A disk that is full for one shard's parts."""

    def __init__(self, store: Any, shard: str) -> None:
        self._store = store
        self._shard = shard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def stage(self, key: str) -> Any:
        if self._shard in key:
            raise StateError(f"can't write {key}: no space left; make room and run again")
        return self._store.stage(key)


async def test_a_full_disk_ends_the_backfill_with_the_one_line_that_a_person_needs(folder: Path) -> None:
    async with tiny(repos=6, hosts=2) as network:
        with state_of(folder, network) as state:
            planned = await plan_backfill(state, run_id="plan")
            keys = list(planned.plan.shards())
            full = replace(state, store=FullStore(state.store, keys[0]))
            shards = [find_shard(planned.plan, key) for key in keys]
            with pytest.raises(StateError, match="no space left; make room and run again"):
                await run_backfill(full, planned.plan, load_selection(state.config), shards, run_id="run")
            assert fold_of(state, keys[0]).dids == {}
            assert_sound(state)
            await run_all(state)
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_a_host_that_may_not_be_talked_to_any_more_is_an_outcome(folder: Path, network: LocalNetwork) -> None:
    """The plan was made when private hosts were allowed."""
    with state_of(folder, network) as state:
        await plan_backfill(state, run_id="plan")
    with state_of(folder, network, processing={"allow_private_hosts": False}) as state:
        plan = PlanStore(state.store).read()
        assert plan.count == len(network.dids)
        await run_one(state)
        assert {one.outcome.value for one, _ in fold_of(state).dids.values()} == {"refused_host"}
        assert network.pds_requests() == 0
        assert_sound(state)
