"""What a long log needs: rewrites in several entries, and snapshots that are written while a run goes on."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path

import pytest

from backfill_dagster.progress import has_rewrites
from backfill_dagster.records.rewrite import PartRewriter
from backfill_dagster.state import BackfillState
from backfill_dagster.worker import writer as writer_module
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.mortal import KilledError, mortal
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, only_shard, rows_in, run_one, state_of, tiny
from backfill_dagster_tests.worker.upkeep import (
    BROKEN,
    LIKE,
    STEPS_MAX,
    carry_out_orders,
    copied,
    entries_of,
    finish,
    left_to_do,
    order,
    remove,
    repair,
)

ONE_BY_ONE = {"record_types": ["app.bsky.feed.like"], "processing": {"batch_size": 1, "concurrent_requests": 1}}
IN_PAIRS = {"record_types": ["app.bsky.feed.like"], "processing": {"batch_size": 2, "concurrent_requests": 1}}

FETCHED_AFTER = 6
"""Steps until both accounts are fetched and committed; `test_recover` dies in these."""


@pytest.fixture
def _one_part_per_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartRewriter, "superseded", partialmethod(PartRewriter.superseded, 1))


@pytest.mark.usefixtures("_one_part_per_entry")
async def test_a_rewrite_in_several_entries_is_done_with_the_last(folder: Path) -> None:
    """Killed at every step of it; `rewritten` stands in the last entry only, so that the rest stays work."""
    base = folder / "base"
    base.mkdir()
    async with tiny(repos=4, median=8) as network:
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE]})
        with state_of(base, network, **IN_PAIRS) as state:
            await run_all(state)
            rows = rows_in(state)
            # One account of each of both parts.
            first, last = network.dids[0], network.dids[-1]
            state.ledger.mark_for_retry(only_shard(state), {did: fold_of(state).dids[did][1] for did in (first, last)})
        died = 0
        for steps in range(FETCHED_AFTER, STEPS_MAX):
            with copied(base, folder / f"copy-{steps}") as state:
                before = fold_of(state).seq
                doomed, life = mortal(state, steps)
                try:
                    await run_one(doomed)
                except KilledError:
                    died += 1
                rewrites = [entry for entry in entries_of(state, only_shard(state), before) if entry.removes]
                if len(rewrites) == 1:
                    assert has_rewrites(fold_of(state)), "half of it is not it"
                assert all(len(entry.removes) == 1 for entry in rewrites)
                await finish(state)
                assert rows_in(state) == rows, steps
                said = [entry for entry in entries_of(state, only_shard(state), before) if entry.rewritten]
                assert len(said) == 1
                assert not has_rewrites(fold_of(state))
                assert_sound(state)
            if not life.is_over:
                assert died == steps - FETCHED_AFTER > 8
                return
        raise AssertionError("a run without an end")


def snapshots_of(state: BackfillState) -> list[int]:
    return state.log(only_shard(state)).snapshots()


async def test_snapshots_are_written_while_a_run_goes_on_and_read_by_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SNAPSHOT_ENTRIES", 3)
    async with tiny(repos=8, median=8) as network:
        await network.control.add({"did": network.dids[0], "records": [LIKE, BROKEN]})
        with state_of(folder, network, **ONE_BY_ONE) as state:
            await run_all(state)
            assert snapshots_of(state) == [6, 9]
            await network.control.add({"did": network.dids[0], "records": [LIKE]})
            await run_all(state, refresh=True)
            log, shard = state.log(only_shard(state)), only_shard(state)
            last = log.last_seq()
            assert len(snapshots_of(state)) == 2
            assert last - snapshots_of(state)[-1] < 3
            assert log.read() == log.read(whole=True)
            assert [entry.seq for entry in entries_of(state, shard)] == list(range(1, last + 1)), "no entry was deleted"
            assert_sound(state)
            asked = network.pds_requests()
            assert left_to_do(state) == []
            assert network.pds_requests() == asked


async def test_purges_and_retries_go_by_a_snapshot_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "SNAPSHOT_ENTRIES", 1)
    async with tiny(repos=3, median=8) as network:
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE, LIKE]})
        with state_of(folder, network, **ONE_BY_ONE) as state:
            await run_all(state)
            first, second, third = network.dids
            uri = next(uri for uri, _, _ in sorted(rows_in(state)) if second in uri)
            order(state, [first], [uri])
            await carry_out_orders(state)
            shard = only_shard(state)
            state.ledger.mark_for_retry(shard, {did: fold_of(state).dids[did][1] for did in (second, third)})
            await finish(state)
            assert fold_of(state).purged == {first, uri}
            assert fold_of(state) == state.log(shard).read(whole=True)
            uris = {found for found, _, _ in rows_in(state)}
            assert uri not in uris
            assert not any(first in found for found in uris)
            assert_sound(state)


async def test_an_entry_voided_below_the_newest_snapshot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a repair itself would have written one: until its last entry nobody may read past the damage."""
    monkeypatch.setattr(writer_module, "SNAPSHOT_ENTRIES", 2)
    async with tiny(repos=4, median=8) as network:
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE]})
        with state_of(folder, network, **ONE_BY_ONE) as state:
            await run_all(state)
            rows, shard = rows_in(state), only_shard(state)
            remove(state, state.log(shard).key(3))
            assert snapshots_of(state)
            assert fold_of(state).dids, "the snapshot knows it still"
            done = await repair(state)
            assert list(done.shards[shard].voids) == [3]
            assert len(done.shards[shard].reopened) == 1
            assert fold_of(state) == state.log(shard).read(whole=True)
            assert fold_of(state).voids == {3}
            await finish(state)
            assert rows_in(state) == rows
            assert fold_of(state) == state.log(shard).read(whole=True)
            assert_sound(state)
