"""Rows that a newer fetch replaced leave the files, and nothing else does."""

from __future__ import annotations

from pathlib import Path

from backfill_dagster.model import Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.progress import has_rewrites
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, item_of, only_shard, rows_in, state_of, tiny

BROKEN = {"collection": "app.bsky.feed.like", "record": {"subject": 7}}


def reopen(state: BackfillState, *dids: str) -> None:
    state.ledger.mark_for_retry(only_shard(state), {did: item_of(state, did).seq for did in dids})


async def test_one_did_of_a_part_is_replaced_and_its_neighbours_are_copied(folder: Path) -> None:
    async with tiny(repos=3) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            old_parts, before = set(fold_of(state).parts), rows_in(state)
            one = network.dids[1]
            reopen(state, one)
            await run_all(state)
            fold = fold_of(state)
            assert not has_rewrites(fold)
            assert rows_in(state) == before
            assert rows_by_author(state.config) == expected_rows(network)
            neighbours = old_parts & set(fold.parts)
            assert neighbours < old_parts, "parts that had rows of it are new"
            assert {info.key for info in state.store.list("records/")} == {
                path for path in fold.parts if path.startswith("records/")
            }
            assert_sound(state)


async def test_a_part_without_a_live_row_has_no_successor(folder: Path) -> None:
    async with tiny(repos=1) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            count = len(fold_of(state).parts)
            reopen(state, network.dids[0])
            await run_all(state)
            assert len(fold_of(state).parts) == count
            assert_sound(state)


async def test_quarantined_records_are_replaced_too(folder: Path) -> None:
    async with tiny(repos=2) as network:
        did = network.dids[0]
        added = await network.control.add({"did": did, "records": [BROKEN, BROKEN]})
        with state_of(folder, network) as state:
            await run_all(state)
            assert fold_of(state).dids[did][0].quarantined == 2
            key = added["uris"][0].removeprefix(f"at://{did}/")
            await network.control.delete({"did": did, "keys": [key]})
            reopen(state, did)
            await run_all(state)
            assert fold_of(state).dids[did][0].quarantined == 1
            assert_sound(state)


async def test_again_and_again(folder: Path) -> None:
    async with tiny(repos=3) as network:
        with state_of(folder, network, processing={"batch_size": 1}) as state:
            await run_all(state)
            expected = rows_in(state)
            for turn in range(3):
                reopen(state, *network.dids[turn:])
                await run_all(state)
                assert rows_in(state) == expected
                assert_sound(state)


async def test_rows_that_end_with_their_scope_are_taken_out(folder: Path) -> None:
    """Nothing replaces them: the account is gone when the new scope asks for it."""
    async with tiny(repos=2) as network:
        gone = network.dids[0]
        with state_of(folder, network) as state:
            await run_all(state)
        await network.control.status({"did": gone, "status": "deactivated"})
        with state_of(folder, network, record_types=["app.bsky.feed.*"]) as state:
            came = await run_all(state)
            assert came.outcomes[gone] == "deactivated"
            assert set(rows_by_author(state.config)) == {network.dids[1]}
            result = fold_of(state).dids[gone][0]
            assert (result.records_total, result.rows_scope) == (0, "")
            assert result.last_complete_rev is not None
            assert_sound(state)
            reopen(state, gone)
            await network.control.status({"did": gone, "status": "active"})
            assert (await run_all(state)).outcomes[gone] == "complete"
            assert set(rows_by_author(state.config)) == set(network.dids)
            assert PlanStore(state.store).read().generation == 1
            assert fold_of(state).dids[gone][0].outcome is Outcome.COMPLETE
            assert_sound(state)
