"""Purges and damage: orders that can't be read, orders that are lost, rows in parts that are lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.errors import StateError
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.report import verify_backfill
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, only_shard, rows_in, tiny
from backfill_dagster_tests.worker.upkeep import (
    LIKE,
    all_uris,
    authors_on_disk,
    copied,
    finish,
    finished_in,
    flip,
    left_to_do,
    order,
    purge,
    refetch_all,
    remove,
    repair,
    uris_of,
)

SETTINGS = {"record_types": ["app.bsky.feed.like"], "processing": {"batch_size": 2, "concurrent_requests": 1}}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network() -> AsyncIterator[LocalNetwork]:
    async with tiny(repos=3, median=4) as network:
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE, LIKE]})
        yield network


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base(tmp_path_factory: pytest.TempPathFactory, network: LocalNetwork) -> Path:
    return await finished_in(tmp_path_factory.mktemp("base"), network, **SETTINGS)


@pytest.fixture
def state(base: Path, folder: Path) -> Iterator[BackfillState]:
    with copied(base, folder / "copy") as state:
        yield state


@pytest.mark.parametrize("damage", [flip, remove], ids=["flipped", "missing"])
async def test_an_order_that_is_damaged_stops_every_run_until_it_is_mended(
    network: LocalNetwork, state: BackfillState, damage: object
) -> None:
    """Without it, what was purged would be fetched again."""
    first, second, _ = network.dids
    like, *_ = uris_of(state, first, "like")
    await purge(state, [second], [like])
    order(state, ["did:plc:nobody"])
    for number in (1, 2):
        damage(state, f"purges/{number:06d}.json")  # type: ignore[operator]
        if number == 1:
            (problem,) = verify_backfill(state)
            assert "purges/000001.json" in problem
            refetch_all(state)
            with pytest.raises(StateError, match=r"purges/000001\.json .*; bring it back from a backup, or"):
                await run_all(state)
    done = await repair(state)
    assert sorted(done.orders) == ([1, 2] if damage is flip else [1])
    assert_sound(state)
    assert set((await run_all(state, refresh=True)).outcomes.values()) == {"complete", "purged"}
    assert like not in all_uris(state)
    assert_sound(state)
    assert (await repair(state)).orders == {}


async def test_orders_that_are_all_gone_are_written_again(network: LocalNetwork, state: BackfillState) -> None:
    first, second, _ = network.dids
    like, *_ = uris_of(state, first, "like")
    await purge(state, [second], [like])
    remove(state, "purges/000001.json")
    said = f"purges/: {only_shard(state)} has purged"
    assert [problem.split(",")[0] for problem in verify_backfill(state)] == [f"{said} {like}", f"{said} {second}"]
    assert list((await repair(state)).orders) == [1]
    assert_sound(state)


async def test_rows_in_a_part_that_is_lost(network: LocalNetwork, state: BackfillState) -> None:
    first, second, third = network.dids
    rows = rows_in(state)
    path = next(path for path, live in fold_of(state).parts.items() if live.part.record_type == "like")
    flip(state, path)
    with pytest.raises(StateError, match="`backfill repair`"):
        await purge(state, [first])
    assert only_shard(state) in left_to_do(state)
    done = await repair(state)
    assert done.shards[only_shard(state)].lost_parts.keys() == {path}
    assert first not in authors_on_disk(state), "a repair ends with what was ordered"
    await finish(state)
    assert rows_in(state) == {row for row in rows if first not in row[0]}
    assert {second, third} == authors_on_disk(state)
    assert_sound(state)
