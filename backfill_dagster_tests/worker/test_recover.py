"""A process may die between any two changes of the disk: the next run ends as if it had not. And what is swept when."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.errors import StateError
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import verify_backfill
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import run_backfill, shards_with_work
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster.worker.recover import recover
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, run_all
from backfill_dagster_tests.worker.mortal import KilledError, mortal
from backfill_dagster_tests.worker.tiny import (
    assert_sound,
    fold_of,
    item_of,
    only_shard,
    rows_in,
    run_one,
    state_of,
    tiny,
)

ONE_BY_ONE = {"record_types": ["app.bsky.feed.like"], "processing": {"batch_size": 1, "concurrent_requests": 1}}
SUBJECT = {"uri": "at://did:web:a.example/app.bsky.feed.post/3k", "cid": "bafyrei"}
LIKE = {"collection": "app.bsky.feed.like", "record": {"subject": SUBJECT}}
STEPS_MAX = 60


@pytest_asyncio.fixture
async def network() -> AsyncIterator[LocalNetwork]:
    async with tiny(repos=2, median=8) as network:
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE]})
        yield network


async def die_in_run(state: BackfillState, steps: int) -> bool:
    """Run the shard with a life of so many steps; whether it died."""
    doomed, life = mortal(state, steps)
    try:
        await run_one(doomed)
    except KilledError:
        assert life.is_over
        return True
    return False


async def finish(state: BackfillState) -> None:
    """Run what has work, as `backfill run` does, by the plan as it is."""
    plan, selection = PlanStore(state.store).read(), load_selection(state.config)
    await run_backfill(state, plan, selection, shards_with_work(state, plan, selection.scope), run_id="finish")


async def killed_at_every_step(base: Path, folder: Path, unbroken: Path) -> int:
    """Copies of a state, each with a run that dies one step later than the last, then run to the end.

    Returns:
        The steps of a run that lives.
    """
    with opened(unbroken / "study.yaml", InstantTime().effects()) as whole:
        expected = rows_in(whole)
    for steps in range(STEPS_MAX):
        copy = folder / f"copy-{steps}"
        shutil.copytree(base, copy)
        with opened(copy / "study.yaml", InstantTime().effects()) as state:
            died = await die_in_run(state, steps)
            await finish(state)
            assert {one.outcome.value for one, _ in fold_of(state).dids.values()} <= {"complete", "unchanged"}, steps
            assert rows_in(state) == expected, steps
            assert_sound(state)
        if not died:
            return steps
    raise AssertionError("a run without an end")


def own_folder(folder: Path, name: str) -> Path:
    own = folder / name
    own.mkdir()
    return own


async def test_killed_at_every_step_of_a_first_run(folder: Path, network: LocalNetwork) -> None:
    base, unbroken = own_folder(folder, "base"), own_folder(folder, "unbroken")
    with state_of(base, network, **ONE_BY_ONE) as state:
        await plan_backfill(state, run_id="plan")
    with state_of(unbroken, network, **ONE_BY_ONE) as state:
        await run_all(state)
    # seal; per DID a part staged, entry, publish, ledger, marks; summary
    assert await killed_at_every_step(base, folder, unbroken) == 1 + 2 * 5 + 1


async def test_killed_at_every_step_of_a_refresh_with_its_rewrite(folder: Path, network: LocalNetwork) -> None:
    base, unbroken = own_folder(folder, "base"), own_folder(folder, "unbroken")
    with state_of(base, network, **(ONE_BY_ONE | {"processing": {"batch_size": 2}})) as state:
        await run_all(state)
        await network.control.add({"did": network.dids[0], "records": [LIKE]})
        await plan_backfill(state, run_id="plan", refresh=True)
    with state_of(unbroken, network, **ONE_BY_ONE) as state:
        await run_all(state)
    with state_of(base, network, **ONE_BY_ONE):
        pass
    # as above, but the unchanged one has no part; then the rewrite: a part staged, entry, publish, the old one deleted
    assert await killed_at_every_step(base, folder, unbroken) == 1 + 5 + 3 + 4 + 1


def remove_ledger(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


async def test_a_ledger_that_is_gone_is_written_again(folder: Path, network: LocalNetwork) -> None:
    with state_of(folder, network) as state:
        await run_all(state)
        items = {did: item_of(state, did) for did in network.dids}
        ledger = state.config.ledger_path
    remove_ledger(ledger)
    with state_of(folder, network) as state:
        assert len(verify_backfill(state)) == len(items)
        came = await run_all(state)
        (result,) = came.done.results.values()
        assert result.numbers.requests == 0
        assert {did: item_of(state, did) for did in network.dids} == items
        assert_sound(state)
        assert (await run_all(state)).done.results == {}


async def test_a_ledger_of_an_earlier_day_is_brought_up_to_date(folder: Path, network: LocalNetwork) -> None:
    with state_of(folder, network) as state:
        await run_all(state)
        ledger = state.config.ledger_path
    old = folder / "old.sqlite"
    shutil.copy(ledger, old)
    with state_of(folder, network) as state:
        await run_all(state, refresh=True)
        newest = {did: item_of(state, did) for did in network.dids}
    remove_ledger(ledger)
    shutil.copy(old, ledger)
    with state_of(folder, network) as state:
        problems = verify_backfill(state)
        assert len(problems) == 2
        assert all(problem.endswith("the next run mends it, or `backfill repair`") for problem in problems)
        await run_all(state)
        assert {did: item_of(state, did) for did in network.dids} == newest
        assert_sound(state)


async def test_a_log_that_ends_before_its_ledger_is_refused(folder: Path, network: LocalNetwork) -> None:
    """Writing on would use the lost entries' numbers again, and nobody could tell old items from new ones."""
    with state_of(folder, network) as state:
        await run_all(state)
        shard = only_shard(state)
        log = sorted((Path(str(state.config.state_path)) / "log" / shard).iterdir())
        content = log[-1].read_bytes()
        log[-1].unlink()
        asked = network.pds_requests()
        with pytest.raises(StateError, match=r"the ledger knows entry .* bring log/ back"):
            await run_all(state)
        assert network.pds_requests() == asked
        log[-1].write_bytes(content)
        await run_all(state)
        assert network.pds_requests() == asked
        assert_sound(state)


async def test_a_ledger_of_another_state_is_refused(folder: Path, network: LocalNetwork) -> None:
    other = own_folder(folder, "other")
    (other / "workspace.yaml").touch()
    with state_of(folder, network) as state, state_of(other, network) as strange:
        await run_all(state)
        await run_all(strange)
        ledgers = state.config.ledger_path, strange.config.ledger_path
    shutil.copy(ledgers[1], ledgers[0])
    with pytest.raises(StateError, match="belongs to the state"), state_of(folder, network):
        pass


async def test_the_reserved_shard_recovers_with_the_plan(folder: Path) -> None:
    async with tiny(repos=1, states={"not_a_did": 2}) as network:
        with state_of(folder, network) as state:
            doomed, _ = mortal(state, 3)  # generation, seal, entry; then the ledger
            with pytest.raises(KilledError):
                await plan_backfill(doomed, run_id="plan")
            assert list(state.ledger.items(UNROUTABLE_SHARD)) == []
            assert len(fold_of(state, UNROUTABLE_SHARD).dids) == 2
            await run_all(state)
            assert len(list(state.ledger.items(UNROUTABLE_SHARD))) == 2
            assert_sound(state)


def staged(state: BackfillState, key: str, content: bytes = b"left behind") -> str:
    with state.store.stage(key) as file:
        file.write(content)
    return key


async def test_what_an_older_epoch_left_is_swept_and_what_a_newer_one_has_is_not(
    folder: Path, network: LocalNetwork
) -> None:
    with state_of(folder, network) as state:
        await run_all(state)
        shard, fold = only_shard(state), fold_of(state)
        part, quarantine = "records/record_type=post/{}-{:08d}-{}-ab.parquet", "quarantine/{}-{:08d}-{}-ab.parquet"
        dead, kept = [], []
        for pattern in (part, quarantine):
            dead += [staged(state, pattern.format(shard, 9, fold.epoch - 1))]
            kept += [
                staged(state, pattern.format(shard, 9, fold.epoch)),
                staged(state, pattern.format(shard, 9, fold.epoch + 1)),
                staged(state, pattern.format("other.example~0000", 9, 0)),
                staged(state, pattern.format(shard + "0", 9, 0)),
            ]
        kept.append(staged(state, "records/record_type=post/notes.txt"))
        published = [staged(state, pattern.format(shard, 8, fold.epoch - 1)) for pattern in (part, quarantine)]
        stays = staged(state, part.format(shard, 8, fold.epoch))
        state.store.publish([*published, stays])
        recover(state.store, state.ledger, fold, backfill="study", shard=shard)
        assert [info.key for info in state.store.staged()] == sorted(kept)
        assert not any(state.store.exists(key) for key in published)
        assert state.store.exists(stays)
        assert len(verify_backfill(state)) == len(kept) + 1


async def test_where_a_new_part_is_lost_the_old_ones_are_not_swept(folder: Path, network: LocalNetwork) -> None:
    """A rewrite whose entry stands: until its parts are there, those that it replaced are all there is."""
    with state_of(folder, network) as state:
        await run_all(state)
        shard, before = only_shard(state), fold_of(state)
        log = state.log(shard)
        path, lost = next(iter(before.parts.items()))
        part = replace(lost.part, path=path.replace("-00000002-", "-00000009-"))
        sealed = log.seal(before, epoch=before.epoch + 1, run_id="rewrite")
        said = {"run_id": "rewrite", "scope": "", "refresh": 0, "adds": [part], "removes": [path]}
        log.append(sealed, epoch=sealed.epoch, **said)
        items = {did: item_of(state, did) for did in network.dids}
        for _ in range(2):
            fold = log.read()
            fold = log.seal(fold, epoch=fold.epoch + 1, run_id="next")
            with pytest.raises(StateError, match=r"00000009-.*parquet is missing; bring it back from a backup"):
                recover(state.store, state.ledger, fold, backfill="study", shard=shard)
            assert state.store.exists(path), "dead, of an older epoch, and still there"
        assert {did: item_of(state, did) for did in network.dids} == items
        state.store.put(part.path, state.store.get(path))
        recover(state.store, state.ledger, log.read(), backfill="study", shard=shard)
        assert not state.store.exists(path)


async def test_a_live_part_that_waits_in_staging_is_published(folder: Path, network: LocalNetwork) -> None:
    with state_of(folder, network) as state:
        await run_all(state)
        expected = rows_in(state)
        root = Path(str(state.config.state_path))
        for path in fold_of(state).parts:
            (root / "staging" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).rename(root / "staging" / path)
        assert rows_in(state) == set()
        problems = verify_backfill(state)
        assert sum("is live and not published yet" in problem for problem in problems) == len(fold_of(state).parts)
        recover(state.store, state.ledger, fold_of(state), backfill="study", shard=only_shard(state))
        assert rows_in(state) == expected
        assert_sound(state)
