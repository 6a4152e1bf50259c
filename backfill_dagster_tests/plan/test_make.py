"""Planning from end to end: what a source's changes do to shards, and what a silent server must not do."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.errors import SourceError, StateError
from backfill_dagster.localnet import Fault
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, Shard
from backfill_dagster.plan import Plan, PlanStore, make
from backfill_dagster.report import build_coverage
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import assert_sound, rows_in, state_of, tiny


async def planned(state: BackfillState, **options: Any) -> make.PlanResult:
    return await plan_backfill(state, run_id=state.effects.new_id(), **options)


def places(plan: Plan) -> dict[str, str]:
    """DID -> shard, of the current ones."""
    return {one.did: one.shard for one in plan.rows() if not one.delisted}


def numbers(plan: Plan) -> list[int]:
    return [size for _, size in sorted(plan.shards().items())]


async def test_shards_by_host_and_size_in_the_sources_order(folder: Path) -> None:
    async with tiny(repos=9, hosts=2) as network:
        with state_of(folder, network, processing={"shard_size": 2}) as state:
            seen: list[tuple[int, int]] = []
            result = await planned(state, on_resolved=lambda done, total: seen.append((done, total)))
            assert (result.new, result.rerouted, result.delisted, result.unresolved) == (9, 0, 0, 0)
            assert result.listed == 9
            assert seen == [(n, 9) for n in range(1, 10)]
            assert sorted(numbers(result.plan)) == [1, 2, 2, 2, 2]
            for host in network.hosts:
                in_order = [did for did in network.dids if did in host.dids]
                shard_numbers = [Shard.parse(places(result.plan)[did]).number for did in in_order]
                assert shard_numbers == [index // 2 for index in range(len(in_order))]
            one = next(result.plan.rows())
            assert one.handle == network.account(one.did).handle
            assert one.signing_key == network.account(one.did).key.did_key
            assert result.estimate.to_json() == result.plan.metadata["estimate"]


async def test_more_dids_top_up_and_nobody_moves(folder: Path) -> None:
    async with tiny(repos=9) as network:
        sizes = {"processing": {"shard_size": 4}}
        with state_of(folder, network, network.dids[:5], **sizes) as state:
            first = await planned(state)
            assert numbers(first.plan) == [4, 1]
        with state_of(folder, network, list(reversed(network.dids)), **sizes) as state:
            second = await planned(state)
            assert (second.new, second.rerouted, second.delisted) == (4, 0, 0)
            assert numbers(second.plan) == [4, 4, 1]
            now = places(second.plan)
            assert {did: now[did] for did in network.dids[:5]} == places(first.plan)
            third = await planned(state)
            assert third.plan.generation == second.plan.generation, "nothing is new: no generation"
        with state_of(folder, network, processing={"shard_size": 2}) as state:
            fourth = await planned(state)
            assert places(fourth.plan) == now, "neither order nor a smaller shard_size moves anybody"


async def test_a_did_that_left_and_came_back(folder: Path) -> None:
    async with tiny(repos=3) as network:
        gone = network.dids[1]
        with state_of(folder, network) as state:
            await run_all(state)
            before = rows_in(state)
        with state_of(folder, network, [did for did in network.dids if did != gone]) as state:
            came = await run_all(state, refresh=True)
            assert (came.planned.delisted, came.planned.plan.delisted, came.planned.plan.count) == (1, 1, 2)
            (result,) = came.done.results.values()
            assert (result.numbers.dids_total, result.dids) == (2, 2), "it is not fetched"
            assert rows_in(state) == before, "and not deleted"
            assert gone not in came.outcomes
            assert build_coverage(state).delisted == 1
            assert_sound(state)
            assert (await planned(state)).delisted == 0
        with state_of(folder, network) as state:
            came = await run_all(state)
            assert (came.planned.new, came.planned.delisted, came.planned.plan.delisted) == (0, 0, 0)
            (result,) = came.done.results.values()
            assert result.numbers.dids_total == 1, "the refresh that it has missed"
            assert rows_in(state) == before
            assert_sound(state)


async def test_rows_that_come_twice_and_rows_that_are_nothing(folder: Path) -> None:
    async with tiny(repos=2) as network:
        rows = [network.dids[0], f"  {network.dids[0]} ", network.dids[1], "nonsense", "nonsense", "did:plc:SHORT"]
        with state_of(folder, network, rows) as state:
            result = await planned(state)
            assert result.plan.count == 4
            assert result.unroutable == {Outcome.INVALID_DID: 2}
            reserved = {one.did: one.error_detail for one in result.plan.dids(UNROUTABLE_SHARD)}
            assert reserved["nonsense"] == "'nonsense' is not a DID (did:plc:… or did:web:…)"
            assert_sound(state)


def sqlite_source(folder: Path, rows: Iterable[tuple[str, str | None]]) -> dict[str, Any]:
    path = folder / "users.sqlite"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE users (did TEXT, cohort TEXT)")
        database.executemany("INSERT INTO users VALUES (?, ?)", rows)
    database.close()
    query = "SELECT did, cohort FROM users"
    return {"source": {"type": "sqlite", "path": str(path), "query": query, "keep_columns": ["cohort"]}}


async def test_an_empty_source_leaves_the_plan_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network, **sqlite_source(folder, [(did, "a") for did in network.dids])) as state:
            first = await planned(state)
        for refresh in (False, True):
            with state_of(folder, network, **sqlite_source(folder, [])) as state:
                caplog.clear()
                with caplog.at_level(logging.WARNING):
                    again = await planned(state, refresh=refresh)
                assert again.plan.generation == first.plan.generation
                assert (again.listed, again.delisted, again.new, again.plan.count) == (0, 0, 0, 2)
                assert "lists nobody: the plan of 2 DIDs stays as it is" in caplog.text


async def test_a_source_that_was_always_empty(folder: Path) -> None:
    async with tiny(repos=1) as network:
        with state_of(folder, network, **sqlite_source(folder, [])) as state:
            came = await run_all(state)
            assert (came.planned.plan.generation, came.planned.plan.count, came.done.results) == (0, 0, {})
            assert_sound(state)


async def test_columns_are_carried_and_kept_up_to_date(folder: Path) -> None:
    async with tiny(repos=4, states={"unknown": 1}) as network:
        cohorts = dict(zip(network.dids, ["a", "b", None, "b"], strict=True))
        with state_of(folder, network, **sqlite_source(folder, cohorts.items())) as state:
            result = (await run_all(state)).planned
            assert {one.did: one.columns for one in result.plan.rows()} == {
                did: {"cohort": cohort} for did, cohort in cohorts.items()
            }
            (values,) = build_coverage(state).columns.values()
            assert {value: counts.total() for value, counts in values.items()} == {"a": 1, "b": 2, "(null)": 1}
        changed = dict.fromkeys(network.dids, "c")
        with state_of(folder, network, **sqlite_source(folder, changed.items())) as state:
            result = (await run_all(state)).planned
            assert result.plan.generation == 2
            assert (result.new, result.rerouted) == (0, 0)
            assert {one.columns["cohort"] for one in result.plan.rows() if one.shard != UNROUTABLE_SHARD} == {"c"}


async def test_handles_count_as_the_dids_they_stand_for(folder: Path) -> None:
    async with tiny(repos=3) as network:
        first, second, third = network.dids
        handles = [network.account(did).handle for did in network.dids]
        identity = {"handle_resolver": network.hosts[0].url}
        rows = [handles[0].upper(), first, handles[1], third, "nobody.example.com"]
        with state_of(folder, network, rows, identity=identity) as state:
            came = await run_all(state)
            assert came.planned.plan.count == 4
            assert came.outcomes == {**dict.fromkeys(network.dids, "complete"), "nobody.example.com": "invalid_did"}
            assert_sound(state)
            (item,) = state.ledger.attention(Outcome.INVALID_DID, 10)
            assert item.result.error_code == "HandleNotFound"
            assert (await planned(state)).plan.generation == 1
        with state_of(folder, network, [handles[1]]) as state:
            result = await planned(state)
            assert result.unroutable == {Outcome.INVALID_DID: 1}
            (one,) = (one for one in result.plan.dids(UNROUTABLE_SHARD) if not one.delisted)
            assert (one.did, one.error_code) == (handles[1], "HandleNotResolved")
            assert "identity.handle_resolver is null" in one.error_detail
            assert second not in places(result.plan)


async def test_a_handle_resolver_that_is_down_delists_nobody(folder: Path) -> None:
    async with tiny(repos=3) as network:
        known, new, plain = network.dids
        handles = {did: network.account(did).handle for did in network.dids}
        options = {"identity": {"handle_resolver": network.hosts[0].url}}
        with state_of(folder, network, [handles[known], plain], **options) as state:
            before = places((await planned(state)).plan)
        await network.set_faults([Fault(kind="status", status=500, path="com.atproto.identity.resolveHandle", host=0)])
        with state_of(folder, network, [handles[known], handles[new], plain], **options) as state:
            result = await planned(state)
            assert (result.delisted, result.unresolved) == (0, 1)
            assert places(result.plan) == before | {handles[new]: UNROUTABLE_SHARD}
            await network.set_faults([])
            result = await planned(state)
            assert set(places(result.plan)) == set(network.dids)
            assert result.unresolved == 0
            assert_sound(state)


async def test_a_directory_that_is_down_for_some(folder: Path) -> None:
    async with tiny(repos=4) as network:
        silent = network.dids[2]
        await network.set_faults([Fault(kind="status", status=500, host="plc", did=silent)])
        with state_of(folder, network) as state:
            came = await run_all(state)
            assert came.planned.unresolved == 1
            assert came.outcomes == {did: "pending" if did == silent else "complete" for did in network.dids}
            (item,) = state.ledger.attention(Outcome.PENDING, 10)
            assert (item.shard, item.result.error_code) == (UNROUTABLE_SHARD, "DirectoryDown")
            await network.set_faults([])
            came = await run_all(state)
            assert (came.planned.unresolved, came.planned.rerouted, came.planned.new) == (0, 1, 0)
            assert set(came.outcomes.values()) == {"complete"}
            assert_sound(state)


async def test_a_directory_that_is_down_takes_no_shard_away(folder: Path) -> None:
    async with tiny(repos=4, hosts=2) as network:
        did = network.dids[0]
        with state_of(folder, network, identity={"cache_days": 0}) as state:
            before = places((await run_all(state)).planned.plan)
            await network.control.move({"did": did, "to": 1 - network.account(did).host})
            assert (await run_all(state, refresh=True)).outcomes[did] in ("moved", "complete")
            await network.set_faults([Fault(kind="down", host="plc")])
            result = await planned(state, refresh=True)
            assert result.unresolved == 0
            assert set(places(result.plan)) == set(before)
            assert UNROUTABLE_SHARD not in places(result.plan).values()
            assert result.plan.refresh == 2


async def test_a_refresh_looks_everybody_up_again(folder: Path) -> None:
    async with tiny(repos=4, hosts=2, states={"unknown": 1}) as network:
        with state_of(folder, network, identity={"cache_days": 0}) as state:
            first = await run_all(state)
            (unknown,) = (did for did, outcome in first.outcomes.items() if outcome == "unresolvable")
            moved = next(did for did in network.dids if did != unknown)
            await network.control.status({"did": unknown, "status": "active"})
            await network.control.move({"did": moved, "to": 1 - network.account(moved).host})
            assert (await planned(state)).rerouted == 0
            came = await run_all(state, refresh=True)
            assert came.planned.rerouted == 2
            assert came.outcomes == {
                did: "complete" if did in (unknown, moved) else "unchanged" for did in network.dids
            }
            assert_sound(state)
            assert rows_by_author(state.config) == expected_rows(network), "the old host's shard let go of its rows"


class SlowStore:
    """Another planner is quicker, so many times."""

    def __init__(self, store: Any, times: int) -> None:
        self._store, self.times = store, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if key.startswith("plan/") and self.times > 0:
            self.times -= 1
            others = PlanStore(self._store)
            row = PlannedDid(did=f"did:plc:{'a' * 23}{'abcdefghijkl'[self.times]}", shard="else.example~0000")
            assert others.append(others.read(), [row], {"refresh": 0}) is not None
        return bool(self._store.put_if_absent(key, data))


async def test_the_loser_of_a_race_reads_again(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            slow: Any = SlowStore(state.store, 2)
            result = await planned(replace(state, store=slow))
            assert result.plan.generation == 3
            assert result.new == 2
            assert result.delisted == 2, "the others' DIDs aren't in this source"
            assert set(places(result.plan)) == set(network.dids)


async def test_who_always_loses_gives_up(folder: Path) -> None:
    async with tiny(repos=1) as network:
        with state_of(folder, network) as state:
            slow: Any = SlowStore(state.store, make.RACE_TRIES_MAX)
            with pytest.raises(StateError, match="other plans were quicker; run the plan again"):
                await planned(replace(state, store=slow))


async def test_two_plans_at_once_end_in_one(folder: Path) -> None:
    async with tiny(repos=6, hosts=2) as network:
        with state_of(folder, network, processing={"shard_size": 2}) as state:
            one, two = await asyncio.gather(planned(state), planned(state))
            plan = PlanStore(state.store).read()
            assert plan.generation == 1
            assert places(plan) == places(one.plan) == places(two.plan)
            assert {one.new, two.new} == {6, 0}


async def test_a_source_that_is_missing(folder: Path) -> None:
    async with tiny(repos=1) as network:
        source = {"source": {"type": "file", "path": "no_such.csv"}}
        with state_of(folder, network, **source) as state:
            with pytest.raises(SourceError, match=r"no_such\.csv"):
                await planned(state)
            assert PlanStore(state.store).read().generation == 0


async def test_a_limit_takes_the_first_rows(folder: Path) -> None:
    async with tiny(repos=4) as network:
        with state_of(folder, network) as state:
            result = await planned(state, limit=2)
            assert set(places(result.plan)) == set(network.dids[:2])
            assert result.listed == 2
