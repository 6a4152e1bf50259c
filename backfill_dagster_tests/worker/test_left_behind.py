"""An account that has moved leaves its rows in one shard only, whatever came of it and in whatever order shards ran."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import left_behind
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import find_shard, run_backfill
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, rows_in, run_one, shard_keys, state_of, tiny

Then = Callable[[LocalNetwork, BackfillState, str, list[str]], Awaitable[None]]
NO_CACHE = {"identity": {"cache_days": 0}}


async def move(network: LocalNetwork, state: BackfillState, did: str, key: str) -> None:
    """Move an account to the host of a shard, and have the plan find it there."""
    url = next(host.url for host in network.hosts if key.startswith(f"localhost_{host.url.rpartition(':')[2]}~"))
    await network.control.move({"did": did, "to": url})
    await plan_backfill(state, run_id=f"to {key}", refresh=True)


async def deactivated_there(network: LocalNetwork, state: BackfillState, did: str, keys: list[str]) -> None:
    """The new shard has the repo, then hears that the account is deactivated."""
    await network.control.status({"did": did, "status": "deactivated"})
    await plan_backfill(state, run_id="again", refresh=True)
    await run_one(state, keys[1])


async def moved_on(network: LocalNetwork, state: BackfillState, did: str, keys: list[str]) -> None:
    """It has moved to a third host, which doesn't give the repo."""
    await move(network, state, did, keys[2])
    await network.control.status({"did": did, "status": "deactivated"})


async def moved_back_and_on(network: LocalNetwork, state: BackfillState, did: str, keys: list[str]) -> None:
    """It has been back at the first host, whose shard has it anew, before it moved to the third."""
    await move(network, state, did, keys[0])
    await run_one(state, keys[0])
    await moved_on(network, state, did, keys)


def shards_with_rows(state: BackfillState, did: str, keys: list[str]) -> list[int]:
    folds = [fold_of(state, key) for key in keys]
    return [number for number, fold in enumerate(folds) if did in fold.dids and fold.dids[did][0].records_total]


@pytest.mark.parametrize(
    ("then", "at"),
    [(deactivated_there, 1), (moved_on, 1), (moved_back_and_on, 0)],
    ids=["deactivated there", "moved on", "moved back and on"],
)
async def test_old_rows_go_although_the_old_shard_was_not_run(folder: Path, then: Then, at: int) -> None:
    async with tiny(repos=6, hosts=3) as network:
        with state_of(folder, network, **NO_CACHE) as state:
            await run_all(state)
            keys, before = shard_keys(state), rows_in(state)
            did = next(iter(fold_of(state, keys[0]).dids))
            await move(network, state, did, keys[1])
            await run_one(state, keys[1])
            await then(network, state, did, keys)
            for _ in range(2):
                await run_all(state)
            assert shards_with_rows(state, did, keys) == [at]
            assert rows_in(state) == before
            assert_sound(state)


async def test_who_comes_back_leaves_the_newer_rows_where_they_are_until_they_are_had_again(folder: Path) -> None:
    """The old shard was never run in between: its rows are older than those of the shard that is left."""
    async with tiny(repos=4, hosts=2) as network:
        with state_of(folder, network, **NO_CACHE) as state:
            await run_all(state)
            keys = shard_keys(state)
            did = next(iter(fold_of(state, keys[0]).dids))
            await move(network, state, did, keys[1])
            post = {"collection": "app.bsky.feed.post", "record": {"text": "new"}}
            await network.control.add({"did": did, "records": [post]})
            await run_one(state, keys[1])
            await network.control.status({"did": did, "status": "deactivated"})
            await move(network, state, did, keys[0])
            for status in ("deactivated", "active"):
                await network.control.status({"did": did, "status": status})
                came = await run_all(state, refresh=True)
                assert shards_with_rows(state, did, keys) == [1 if status == "deactivated" else 0]
                assert sum("/app.bsky.feed.post/" in uri for uri, _, _ in rows_in(state) if did in uri) > 0
                assert_sound(state)
            assert came.outcomes[did] == "complete"
            assert rows_by_author(state.config) == expected_rows(network)


async def test_a_word_that_is_overtaken_while_it_is_read_takes_no_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both shards run at once: the one that the account has come back to lets its old rows go and answers its mark."""
    async with tiny(repos=4, hosts=2) as network:
        with state_of(folder, network, **NO_CACHE) as state:
            await run_all(state)
            keys = shard_keys(state)
            did = next(iter(fold_of(state, keys[0]).dids))
            await move(network, state, did, keys[1])
            await run_one(state, keys[1])
            await network.control.status({"did": did, "status": "deactivated"})
            await move(network, state, did, keys[0])
            loop, read, met = asyncio.get_running_loop(), ShardLog.read, []

            def overtaken_read(log: ShardLog, **options: Any) -> Fold:
                fold = read(log, **options)
                if log.shard == keys[0] and not met:
                    met.append(fold)
                    asyncio.run_coroutine_threadsafe(run_one(state, keys[0]), loop).result(60)
                return fold

            plan, fold = PlanStore(state.store).read(), fold_of(state, keys[1])
            monkeypatch.setattr(ShardLog, "read", overtaken_read)
            found = await asyncio.to_thread(left_behind, state, plan, plan.dids(keys[1]), fold, keys[1])
            assert (len(met), found) == (1, [])
            assert shards_with_rows(state, did, keys) == [1]


async def test_an_older_word_takes_no_newer_rows_where_marks_are_lost(folder: Path) -> None:
    """As with a ledger that is made anew: nothing says any more that the account has come back and waits."""
    async with tiny(repos=4, hosts=2) as network:
        with state_of(folder, network, **NO_CACHE) as state:
            await run_all(state)
            keys, before = shard_keys(state), rows_in(state)
            did = next(iter(fold_of(state, keys[0]).dids))
            await move(network, state, did, keys[1])
            await run_one(state, keys[1])
            await move(network, state, did, keys[0])
            assert did in state.ledger.retry_marks(keys[0])
            with closing(sqlite3.connect(state.config.ledger_path, isolation_level=None)) as database:
                database.execute("DELETE FROM retry_marks")
            assert state.ledger.retry_marks(keys[0]) == {}
            await run_one(state, keys[1])
            assert shards_with_rows(state, did, keys) == [0, 1]
            await run_all(state, refresh=True)
            assert shards_with_rows(state, did, keys) == [0]
            assert rows_in(state) == before
            assert_sound(state)


async def test_a_run_by_an_old_plan_leaves_alone_whom_a_newer_plan_has_brought(folder: Path) -> None:
    async with tiny(repos=4, hosts=2) as network:
        with state_of(folder, network, **NO_CACHE) as state:
            old_plan = (await run_all(state)).planned.plan
            keys = shard_keys(state)
            did = next(iter(fold_of(state, keys[0]).dids))
            await move(network, state, did, keys[1])
            await run_all(state)
            before = rows_in(state)
            selection = load_selection(state.config)
            everything = [find_shard(old_plan, key) for key in keys]
            await run_backfill(state, old_plan, selection, everything, run_id="by the old plan")
            assert shards_with_rows(state, did, keys) == [1]
            assert rows_in(state) == before
