"""A config that comes to want other records: half-way, among failures, there and back again.

Whatever was before, a run that goes through leaves what a backfill would have that had always had the new config.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome
from backfill_dagster.records.purges import PurgeLog
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster_tests.road import expected_rows, rows_by_author
from backfill_dagster_tests.worker.refreshes import EVERYTHING, Hand, left_to_do, run
from backfill_dagster_tests.worker.telling import Told, fresh, named, scope_of, standing, told
from backfill_dagster_tests.worker.tiny import assert_sound, rows_in, run_one, state_of, tiny

Config = Mapping[str, Any]

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
IN_TURN = {"concurrent_requests": 1, "batch_size": 2, "max_retries": 0}


def every_third_like(network: LocalNetwork) -> Config:
    likes = [f"at://{did}/{key}" for did in network.dids for key in Hand(network, did).held(LIKE)]
    source = {"type": "inline", "uris": likes[::3]}
    return {"record_types": [LIKE, FOLLOW], "filters": [{"record_type": LIKE, "source": source}]}


CHANGES: dict[str, Callable[[LocalNetwork], Config]] = {
    "fewer types": lambda network: {"record_types": [LIKE]},
    "more types": lambda network: EVERYTHING,
    "a range": lambda network: {"time_range": {"start_date": "2024-06-01", "end_date": "2025-06-30"}},
    "a filter": every_third_like,
}


async def stopped_by_its_quota(folder: Path, network: LocalNetwork) -> str:
    with state_of(folder, network, processing=IN_TURN | {"quota": {"requests": 3}}) as state:
        assert (await run(state)).requests == 3
        return scope_of(state)


async def cancelled(folder: Path, network: LocalNetwork) -> str:
    await network.set_faults([Fault(kind="stall", did=network.dids[3])])
    with state_of(folder, network, processing=IN_TURN) as state:
        await plan_backfill(state, run_id="plan")
        three = asyncio.Event()

        def count(numbers: RunNumbers) -> None:
            if numbers.dids_done == 3:
                three.set()

        task = asyncio.create_task(run_one(state, on_progress=count))
        await asyncio.wait_for(three.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await network.set_faults([])
        return scope_of(state)


@pytest.mark.parametrize(
    ("change", "first"),
    [*((change, stopped_by_its_quota) for change in CHANGES), ("fewer types", cancelled)],
    ids=[*CHANGES, "fewer types, cancelled"],
)
async def test_half_way_and_back_again(folder: Path, change: str, first: Callable[[Path, LocalNetwork], Any]) -> None:
    async with tiny(repos=5, median=25) as network:
        names, after = named(network), CHANGES[change](network)
        expected = {names[did]: sum(rows.values()) for did, rows in expected_rows(network).items()}
        old = await first(folder, network)
        with state_of(folder, network) as state:
            seqs = {"a": 2, "b": 2, "c": 3}
            assert told(state, names, {old: "old"}) == {
                name: Told("complete", expected[name], seq, 1, "old", 0) for name, seq in seqs.items()
            }
            half = rows_in(state)
        with state_of(folder, network, **after) as state:
            now = standing(state)
            assert (now.outcomes, now.pending, now.rows.total()) == ({Outcome.PENDING: 5}, 5, len(half))
            assert rows_in(state) == half, "a changed config alone changes nothing"
            assert (await run(state)).requests == 5
            rows, counts = await fresh(folder, network, names, **after)
            assert rows_in(state) == rows != half
            scopes = {old: "old", scope_of(state): "new"}
            assert told(state, names, scopes) == {n: Told("complete", counts[n], 5, 1, "new", 0) for n in "abcde"}
            assert left_to_do(state) == []
            assert_sound(state)
        with state_of(folder, network) as state:
            assert (await run(state)).requests == 5
            assert told(state, names, scopes) == {n: Told("complete", expected[n], 8, 1, "old", 0) for n in "abcde"}
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


ALL = {"processing": {"max_retries": 0}}
LIKES = ALL | {"record_types": [LIKE]}
NAMES = ("same", "heals", "leaves", "breaks", "purged", "returns")


async def test_while_some_are_broken_gone_or_purged(folder: Path) -> None:
    async with tiny(repos=6, states={"deactivated": 1}) as network:
        active = network.active
        dids = dict(zip(NAMES, [*active, *(did for did in network.dids if did not in active)], strict=True))
        names = {did: name for name, did in dids.items()}
        await network.set_faults([Fault(kind="status", status=401, did=dids["heals"])])
        with state_of(folder, network, **ALL) as state:
            PurgeLog(state.store).append([dids["purged"]], [], at="", by="", reason="")
            assert (await run(state)).requests == 5
            scopes = {scope_of(state): "old"}
            whole = {name: sum(expected_rows(network).get(did, {}).values()) for name, did in dids.items()}
            assert told(state, names, scopes) == {
                "same": Told("complete", whole["same"], 3, 1, "old", 0),
                "heals": Told("http_error", 0, 3, 1, "old", 0),
                "leaves": Told("complete", whole["leaves"], 3, 1, "old", 0),
                "breaks": Told("complete", whole["breaks"], 3, 1, "old", 0),
                "purged": Told("purged", 0, 2, 0, "old", 0),
                "returns": Told("deactivated", 0, 3, 1, "old", 0),
            }
            old_rows = {row for row in rows_in(state) if dids["breaks"] in row[0]}

        await network.control.status({"did": dids["leaves"], "status": "deactivated"})
        await network.control.status({"did": dids["returns"], "status": "active"})
        await network.set_faults([Fault(kind="status", status=401, did=dids["breaks"])])
        with state_of(folder, network, **LIKES) as state:
            scopes[scope_of(state)] = "new"
            assert (await run(state)).requests == 5
            rows, likes = await fresh(folder, network, names, **LIKES)
            now = {
                "same": Told("complete", likes["same"], 5, 1, "new", 0),
                "heals": Told("complete", likes["heals"], 5, 1, "new", 0),
                "leaves": Told("deactivated", 0, 5, 1, "new", 0),
                "breaks": Told("http_error", whole["breaks"], 5, 1, "new", 0),
                "purged": Told("purged", 0, 2, 0, "old", 0),
                "returns": Told("complete", likes["returns"], 5, 1, "new", 0),
            }
            assert told(state, names, scopes) == now
            assert rows_in(state) == old_rows | {row for row in rows if dids["purged"] not in row[0]}
            outcomes = {Outcome.COMPLETE: 3, Outcome.DEACTIVATED: 1, Outcome.HTTP_ERROR: 1, Outcome.PURGED: 1}
            assert (standing(state).outcomes, standing(state).pending) == (outcomes, 1)
            assert_sound(state)

            await network.set_faults([])
            assert (await run(state)).requests == 1
            rows, likes = await fresh(folder, network, names, **LIKES)
            assert told(state, names, scopes) == now | {"breaks": Told("complete", likes["breaks"], 8, 1, "new", 0)}
            assert rows_in(state) == {row for row in rows if dids["purged"] not in row[0]}
            assert left_to_do(state) == []
            assert_sound(state)

        with state_of(folder, network, **ALL) as state:
            assert (await run(state)).requests == 5
            assert told(state, names, scopes) == {
                "same": Told("complete", whole["same"], 11, 1, "old", 0),
                "heals": Told("complete", sum(expected_rows(network)[dids["heals"]].values()), 11, 1, "old", 0),
                "leaves": Told("deactivated", 0, 11, 1, "old", 0),
                "breaks": Told("complete", whole["breaks"], 11, 1, "old", 0),
                "purged": Told("purged", 0, 2, 0, "old", 0),
                "returns": Told("complete", sum(expected_rows(network)[dids["returns"]].values()), 11, 1, "old", 0),
            }
            left = {did: rows for did, rows in expected_rows(network).items() if did != dids["purged"]}
            assert rows_by_author(state.config) == left
            assert_sound(state)


async def test_who_has_no_host_is_pending_until_the_next_plan(folder: Path) -> None:
    states = {"tombstoned": 1, "not_a_did": 1}
    async with tiny(repos=2, states=states) as network:
        names = named(network)
        outcomes = {Outcome.UNRESOLVABLE: 1, Outcome.INVALID_DID: 1}
        with state_of(folder, network) as state:
            await run(state)
            assert standing(state, UNROUTABLE_SHARD).outcomes == outcomes
            scopes = {scope_of(state): "old"}
        lookups = network.requests()[network.plc_url]
        with state_of(folder, network, **LIKES) as state:
            scopes[scope_of(state)] = "new"
            assert standing(state, UNROUTABLE_SHARD).outcomes == {Outcome.PENDING: 2}
            await plan_backfill(state, run_id="plan")
            assert standing(state, UNROUTABLE_SHARD).outcomes == outcomes
            said = {one for name, one in told(state, names, scopes).items() if one.outcome != "complete"}
            assert said == {Told("unresolvable", 0, 4, 0, "new", 0), Told("invalid_did", 0, 4, 0, "new", 0)}
            assert network.requests()[network.plc_url] == lookups
            assert standing(state).pending == 1
