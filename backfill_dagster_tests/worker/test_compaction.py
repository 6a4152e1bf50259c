"""Compaction: the same rows in fewer parts, whoever dies or holds what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.errors import StateError, UnknownShardError
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD
from backfill_dagster.progress import has_rewrites
from backfill_dagster.records import compact as compact_module
from backfill_dagster.state import BackfillState
from backfill_dagster.worker import rewriting
from backfill_dagster.worker.writer import ShardWriter
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.mortal import KilledError, mortal
from backfill_dagster_tests.worker.tiny import (
    POSTS_AND_LIKES,
    assert_sound,
    fold_of,
    item_of,
    only_shard,
    shard_keys,
    state_of,
    tiny,
)
from backfill_dagster_tests.worker.upkeep import (
    BROKEN,
    STEPS_MAX,
    all_rows,
    by_uri,
    compact,
    copied,
    entries_of,
    finish,
    finished_in,
    flip,
    held,
    left_to_do,
    remove,
)

MANY_PARTS = {"record_types": POSTS_AND_LIKES, "processing": {"batch_size": 1, "concurrent_requests": 1}}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network() -> AsyncIterator[LocalNetwork]:
    async with tiny(repos=3, median=8) as network:
        for did in network.dids:
            await network.control.add({"did": did, "records": [BROKEN]})
        yield network


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base(tmp_path_factory: pytest.TempPathFactory, network: LocalNetwork) -> Path:
    """A finished backfill; tests work on copies."""
    return await finished_in(tmp_path_factory.mktemp("base"), network, **MANY_PARTS)


@pytest.fixture
def state(base: Path, folder: Path) -> Iterator[BackfillState]:
    with copied(base, folder / "copy") as state:
        yield state


async def test_the_same_rows_in_the_same_order_in_one_part_of_each_type(
    network: LocalNetwork, state: BackfillState
) -> None:
    before, rows = fold_of(state), all_rows(state)
    items = {did: item_of(state, did) for did in network.dids}
    types = {live.part.record_type for live in before.parts.values()}
    assert None in types
    asked = network.pds_requests()
    done = await compact(state)
    assert done.held == {}
    assert done.done == {only_shard(state): len(before.parts) - len(types)}
    fold = fold_of(state)
    assert sorted((live.part.record_type for live in fold.parts.values()), key=str) == sorted(types, key=str)
    assert all_rows(state) == rows
    assert fold.dids == before.dids
    assert {did: item_of(state, did) for did in network.dids} == items
    assert network.pds_requests() == asked
    assert_sound(state)
    assert left_to_do(state) == []


async def test_nothing_to_do_touches_nothing(state: BackfillState) -> None:
    await compact(state)
    seq = fold_of(state).seq
    assert (await compact(state)).done == {}
    assert fold_of(state).seq == seq


async def test_what_a_refresh_brings_is_merged_too(network: LocalNetwork, state: BackfillState) -> None:
    await compact(state)
    await network.control.add({"did": network.dids[0], "records": [BROKEN]})
    await run_all(state, refresh=True)
    rows = by_uri(all_rows(state))
    await compact(state)
    assert by_uri(all_rows(state)) == rows
    types = [live.part.record_type for live in fold_of(state).parts.values()]
    assert len(types) == len(set(types))
    assert_sound(state)


async def test_big_parts_are_left_alone_and_small_ones_grow_no_bigger_than_asked(state: BackfillState) -> None:
    fold, rows = fold_of(state), by_uri(all_rows(state))
    sizes = sorted(live.part.bytes for live in fold.parts.values())
    assert (await compact(state, target_bytes=sizes[0] * 2)).done == {}
    middle = sizes[len(sizes) // 2]
    big = {path for path, live in fold.parts.items() if live.part.bytes * 2 >= 2 * middle + 1}
    await compact(state, target_bytes=2 * middle + 1)
    assert big <= set(fold_of(state).parts) < set(fold.parts) | set(fold_of(state).parts)
    assert by_uri(all_rows(state)) == rows
    assert_sound(state)


async def test_many_parts_are_merged_in_several_entries(state: BackfillState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_module, "PARTS_PER_ENTRY", 2)
    fold, rows = fold_of(state), by_uri(all_rows(state))
    await compact(state)
    assert by_uri(all_rows(state)) == rows
    types = [live.part.record_type for live in fold_of(state).parts.values()]
    assert len(types) == len(set(types)), "whatever one entry can hold, in the end there is one"
    assert all(len(entry.removes) <= 2 for entry in entries_of(state, only_shard(state), fold.seq))
    assert_sound(state)


async def test_parts_of_another_form_are_not_merged(folder: Path, network: LocalNetwork) -> None:
    """`records.raw` changed between them: the scope stays, so nothing is fetched anew."""
    first = network.dids[0]
    with state_of(folder, network, [first], **MANY_PARTS) as state:
        await run_all(state)
    with state_of(folder, network, **(MANY_PARTS | {"records": {"raw": "none"}})) as state:
        await run_all(state)
        rows = by_uri(all_rows(state))
        await compact(state)
        for record_type in ("post", "like"):
            forms = [live for live in fold_of(state).parts.values() if live.part.record_type == record_type]
            assert len(forms) == 2, "one with records and one without"
        assert by_uri(all_rows(state)) == rows
        with_record = {row["author"] for row in rows["post"] if row["record"] is not None}
        assert with_record == {first}
        assert len([one for one in fold_of(state).parts.values() if one.part.record_type is None]) == 1
        assert_sound(state)


async def test_superseded_rows_are_not_carried_along(
    network: LocalNetwork, state: BackfillState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that died before its rewrite left them."""
    rows = by_uri(all_rows(state))
    did = network.dids[1]
    state.ledger.mark_for_retry(only_shard(state), {did: fold_of(state).dids[did][1]})
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(rewriting, "take_out_superseded", die_with_work)
        await finish(state)
    assert has_rewrites(fold_of(state))
    await compact(state)
    assert not has_rewrites(fold_of(state))
    assert len(state.store.list("records/")) == len(rows) - 1
    assert_same_but_fetched_at(by_uri(all_rows(state)), rows)
    assert_sound(state)


def die_with_work(writer: ShardWriter) -> None:
    if has_rewrites(writer.fold):
        raise KilledError


def assert_same_but_fetched_at(rows: object, others: object) -> None:
    def without(some: object) -> object:
        return {
            name: [{key: value for key, value in row.items() if key != "fetched_at"} for row in of_type]
            for name, of_type in some.items()  # type: ignore[attr-defined]
        }

    assert without(rows) == without(others)


async def test_killed_at_every_step(folder: Path, network: LocalNetwork) -> None:
    likes = folder / "likes"
    likes.mkdir()
    with state_of(likes, network, **(MANY_PARTS | {"record_types": ["app.bsky.feed.like"]})) as state:
        await run_all(state)
        rows, old_parts = by_uri(all_rows(state)), len(fold_of(state).parts)
    for steps in range(STEPS_MAX):
        with copied(likes, folder / f"copy-{steps}") as state:
            doomed, life = mortal(state, steps)
            try:
                await compact(doomed)
            except KilledError:
                assert life.is_over
            await finish(state)
            assert by_uri(all_rows(state)) == rows, steps
            assert_sound(state)
            if not life.is_over:
                # seal; of each type a part staged, entry, published, and the old ones deleted; summary
                assert steps == 1 + 3 * len(rows) + old_parts + 1
                assert len(fold_of(state).parts) == len(rows)
                return
    raise AssertionError("a compaction without an end")


async def test_what_somebody_else_works_on_is_left_out_and_named(folder: Path) -> None:
    async with tiny(repos=4, hosts=2, median=8) as network:
        with state_of(folder, network, **MANY_PARTS) as state:
            await run_all(state)
            first, second = shard_keys(state)
            parts = set(fold_of(state, first).parts)
            with held(state, first) as owner:
                done = await compact(state)
            assert list(done.done) == [second]
            assert owner in done.held[first]
            assert set(fold_of(state, first).parts) == parts
            assert list((await compact(state)).done) == [first]
            assert_sound(state)


async def test_only_the_shards_that_are_named(folder: Path) -> None:
    async with tiny(repos=4, hosts=2, median=8) as network:
        with state_of(folder, network, **MANY_PARTS) as state:
            await run_all(state)
            first, second = shard_keys(state)
            parts = {key: len(fold_of(state, key).parts) for key in (first, second)}
            fewer = (await compact(state, second, second)).done
            assert fewer == {second: parts[second] - len(fold_of(state, second).parts)}
            assert fewer[second] > 0
            for unknown in ("else.example~0000", "nonsense", UNROUTABLE_SHARD):
                with pytest.raises(UnknownShardError, match=f"unknown shard '{unknown}'; the plan has {first}"):
                    await compact(state, second, unknown)
            assert list((await compact(state)).done) == [first]


@pytest.mark.parametrize("damage", ["missing", "flipped"])
async def test_rows_of_a_damaged_part_are_not_copied(state: BackfillState, damage: str) -> None:
    """With a sha256 of its own, nobody could tell the damage any more."""
    path = next(path for path, live in fold_of(state).parts.items() if live.part.record_type == "like")
    remove(state, path) if damage == "missing" else flip(state, path)
    with pytest.raises(StateError, match=r"bring it back from a backup|is neither published nor staged"):
        await compact(state)
    assert state.store.staged() == []
    assert path in fold_of(state).parts
