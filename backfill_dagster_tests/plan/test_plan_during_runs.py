"""A plan is made while a run is at work: the run keeps to the plan it began with, the next one does the rest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import ShardStanding, all_standings
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import BackfillRun, run_backfill, shards_with_work
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import (
    assert_sound,
    fold_of,
    item_of,
    only_shard,
    rows_in,
    run_one,
    shard_keys,
    state_of,
    tiny,
)

WAIT_SECONDS = 60
"""Against hanging only."""

SIZES = {"processing": {"shard_size": 6, "batch_size": 2, "concurrent_requests": 1}}


class HeldStore:
    """The run's writer thread stands still before it appends a certain entry, until it may go on."""

    def __init__(self, store: Any, entry: int) -> None:
        self._store = store
        self._entry = entry
        self._appended = 0
        self.is_reached, self.may_go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._appended += key.startswith("log/")
        if self._appended == self._entry:
            self.is_reached.set()
            assert self.may_go_on.wait(WAIT_SECONDS)
        return bool(self._store.put_if_absent(key, data))


@asynccontextmanager
async def in_the_middle_of_a_run(
    state: BackfillState, shard: str | None = None, *, before_entry: int = 3
) -> AsyncIterator[Callable[[], Awaitable[BackfillRun]]]:
    """A run of one shard by the plan as it is, held before its second batch; what is given lets it end.

    The first entry of a run is its seal.
    """
    plan = PlanStore(state.store).read()
    selection = load_selection(state.config)
    held: Any = HeldStore(state.store, before_entry)
    shards = shards_with_work(state, plan, selection.scope, [shard or only_shard(state)])
    task = asyncio.create_task(run_backfill(replace(state, store=held), plan, selection, shards, run_id="running"))
    assert await asyncio.to_thread(held.is_reached.wait, WAIT_SECONDS)

    async def end() -> BackfillRun:
        held.may_go_on.set()
        return await asyncio.wait_for(task, WAIT_SECONDS)

    try:
        yield end
    finally:
        held.may_go_on.set()
        await asyncio.gather(task, return_exceptions=True)


def standings(state: BackfillState) -> dict[str, ShardStanding]:
    plan = PlanStore(state.store).read()
    return {one.shard: one for one in all_standings(state, plan, load_selection(state.config).scope) if one.dids}


async def assert_all_is_there(state: BackfillState, network: LocalNetwork) -> None:
    came = await run_all(state)
    assert set(came.outcomes) == set(network.dids)
    assert set(came.outcomes.values()) <= {"complete", "unchanged"}
    assert rows_by_author(state.config) == expected_rows(network)
    assert_sound(state)
    assert (await run_all(state)).done.results == {}


def places(plan: Plan) -> dict[str, str]:
    return {one.did: one.shard for one in plan.rows()}


async def test_a_shard_is_topped_up_while_it_is_running(folder: Path) -> None:
    async with tiny(repos=8) as network:
        with state_of(folder, network, network.dids[:4], **SIZES) as state:
            await plan_backfill(state, run_id="first")
            async with in_the_middle_of_a_run(state) as end:
                with state_of(folder, network, **SIZES) as more:
                    assert (await plan_backfill(more, run_id="second")).new == 4
                done = await end()
            running, opened_since = shard_keys(state)
            assert list(done.results) == [running]
            assert (done.results[running].dids, done.results[running].numbers.dids_total) == (4, 4)
            assert set(fold_of(state, running).dids) == set(network.dids[:4])
            now = standings(state)
            assert (now[running].dids, now[running].pending, now[running].has_work) == (6, 2, True)
            assert (now[opened_since].dids, now[opened_since].pending) == (2, 2)
            assert_sound(state)
        with state_of(folder, network, **SIZES) as state:
            came = await run_all(state)
            assert {key: one.numbers.dids_total for key, one in came.done.results.items()} == {
                running: 2,
                opened_since: 2,
            }
            await assert_all_is_there(state, network)


async def test_a_did_is_delisted_while_its_shard_is_running_and_listed_again_later(folder: Path) -> None:
    async with tiny(repos=4) as network:
        fetched, waiting = network.dids[0], network.dids[3]
        with state_of(folder, network, **SIZES) as state:
            before = places((await plan_backfill(state, run_id="first")).plan)
            async with in_the_middle_of_a_run(state) as end:
                with state_of(folder, network, network.dids[1:3], **SIZES) as fewer:
                    assert (await plan_backfill(fewer, run_id="second")).delisted == 2
                (result,) = (await end()).results.values()
            assert (result.dids, result.left) == (4, 0), "the plan that it began with"
            rows = rows_in(state)
        with state_of(folder, network, network.dids[1:3], **SIZES) as state:
            came = await run_all(state, refresh=True)
            (result,) = came.done.results.values()
            assert (result.dids, result.numbers.dids_total) == (2, 2), "neither is fetched"
            assert rows_in(state) == rows, "nor deleted"
            assert set(came.outcomes) == set(network.dids[1:3])
            assert {fold_of(state).dids[did][0].refresh for did in (fetched, waiting)} == {0}
            assert_sound(state)
        with state_of(folder, network, list(reversed(network.dids)), **SIZES) as state:
            came = await run_all(state)
            assert places(came.planned.plan) == before, "back in the shard they had, whatever the order"
            assert came.planned.new == came.planned.rerouted == 0
            (result,) = came.done.results.values()
            assert result.numbers.dids_total == 2, "the refresh that they have missed"
            await assert_all_is_there(state, network)


async def test_a_did_that_was_delisted_before_it_was_ever_fetched(folder: Path) -> None:
    async with tiny(repos=3) as network:
        gone = network.dids[1]
        with state_of(folder, network) as state:
            before = places((await plan_backfill(state, run_id="first")).plan)
        with state_of(folder, network, [did for did in network.dids if did != gone]) as state:
            came = await run_all(state)
            assert gone not in came.outcomes
            assert gone not in rows_by_author(state.config)
            assert state.ledger.find(gone) == []
            assert (await run_all(state)).done.results == {}
        with state_of(folder, network) as state:
            came = await run_all(state)
            (result,) = came.done.results.values()
            assert result.numbers.dids_total == 1
            assert places(came.planned.plan) == before
            await assert_all_is_there(state, network)


async def test_a_delisted_did_keeps_its_place_in_a_full_shard(folder: Path) -> None:
    async with tiny(repos=5) as network:
        sizes = {"processing": {"shard_size": 2}}
        with state_of(folder, network, network.dids[:4], **sizes) as state:
            before = places((await plan_backfill(state, run_id="first")).plan)
        with state_of(folder, network, [*network.dids[:3], network.dids[4]], **sizes) as state:
            plan = (await plan_backfill(state, run_id="second")).plan
            assert places(plan)[network.dids[4]].endswith("~0002"), "the place of the delisted one is not free"
        with state_of(folder, network, **sizes) as state:
            plan = (await plan_backfill(state, run_id="third")).plan
            assert {did: places(plan)[did] for did in before} == before
            assert sorted(plan.shards().values()) == [1, 2, 2]
            await assert_all_is_there(state, network)


async def test_a_refresh_is_asked_for_while_a_run_is_at_work(folder: Path) -> None:
    async with tiny(repos=4) as network:
        with state_of(folder, network, **SIZES) as state:
            await plan_backfill(state, run_id="first")
            async with in_the_middle_of_a_run(state) as end:
                await plan_backfill(state, run_id="second", refresh=True)
                (result,) = (await end()).results.values()
            assert result.left == 0, "by the plan that it began with"
            (now,) = standings(state).values()
            assert now.pending == 4, "what it fetched answers to the old round"
            assert_sound(state)
            came = await run_all(state)
            (result,) = came.done.results.values()
            assert result.numbers.dids_total == 4
            await assert_all_is_there(state, network)


@pytest.mark.parametrize("number", [0, 2], ids=["committed already", "not fetched yet"])
@pytest.mark.parametrize("settled", [True, False], ids=["old host is told", "old host serves on"])
async def test_an_account_is_planned_elsewhere_while_its_old_shard_is_running(
    folder: Path, number: int, settled: bool
) -> None:
    async with tiny(repos=6, hosts=2) as network:
        host, other = network.hosts
        did = host.dids[number]
        with state_of(folder, network, identity={"cache_days": 0}, processing={"batch_size": 1}) as state:
            plan = (await plan_backfill(state, run_id="first")).plan
            old = places(plan)[did]
            async with in_the_middle_of_a_run(state, old) as end:
                if settled:
                    await network.control.move({"did": did, "to": other.url})
                else:
                    network.account(did).named_host = 1 - network.account(did).host
                planned = await plan_backfill(state, run_id="second", refresh=True)
                new = places(planned.plan)[did]
                assert (planned.rerouted, new != old) == (1, True)
                await end()
            network.account(did).host = network.account(did).named_host
            assert_sound(state)
            await run_all(state)
            assert item_of(state, did, new).result.outcome.value == "complete"
            assert fold_of(state, old).dids[did][0].records_total == 0
            await assert_all_is_there(state, network)


async def test_an_account_is_back_by_the_plan_while_its_old_shard_lets_go_of_it(folder: Path) -> None:
    async with tiny(repos=4, hosts=2) as network:
        home, away = network.hosts
        did = home.dids[0]
        with state_of(folder, network, identity={"cache_days": 0}) as state:
            old = places((await run_all(state)).planned.plan)[did]
            await network.control.move({"did": did, "to": away.url})
            new = places((await plan_backfill(state, run_id="second", refresh=True)).plan)[did]
            await run_one(state, new)
            async with in_the_middle_of_a_run(state, old, before_entry=2) as end:
                await network.control.move({"did": did, "to": home.url})
                planned = await plan_backfill(state, run_id="third", refresh=True)
                assert places(planned.plan)[did] == old
                await end()
            assert fold_of(state, old).dids[did][0].outcome.value == "moved", "by the plan that it began with"
            assert fold_of(state, new).dids[did][0].records_total > 0, "the only rows that there are"
            await assert_all_is_there(state, network)
