"""How a repair goes: killed anywhere and done again, beside a run, with zombies about, with accounts that are gone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import pytest_asyncio

from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, RepoOutcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.entry import ENTRY_MAX_BYTES
from backfill_dagster.report import verify_backfill
from backfill_dagster.state import BackfillState
from backfill_dagster.store import LocalStore
from backfill_dagster.worker.repair import Repaired
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, run_all
from backfill_dagster_tests.worker import damages
from backfill_dagster_tests.worker.damages import cut_off, dids_of, entry, part, shard_of
from backfill_dagster_tests.worker.mortal import KilledError, mortal
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, rows_in, state_of, tiny
from backfill_dagster_tests.worker.upkeep import (
    BROKEN,
    LIKE,
    STEPS_MAX,
    blot,
    copied,
    cut_short,
    entries_of,
    finish,
    flip,
    held,
    left_to_do,
    remove,
    repair,
    root_of,
    uris_of,
)


@pytest_asyncio.fixture
async def network() -> AsyncIterator[LocalNetwork]:
    async with tiny(repos=4, median=4) as network:
        follow = {"collection": "app.bsky.graph.follow", "record": {"subject": "did:web:a.example"}}
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE, follow]})
        await network.control.add({"did": network.dids[3], "records": [BROKEN]})
        yield network


@pytest_asyncio.fixture
async def base(folder: Path, network: LocalNetwork) -> Path:
    """The state that `damages` tells of, with its six entries."""
    base = folder / "base"
    base.mkdir()
    await damages.make(base, network)
    return base


async def test_killed_at_every_step_and_done_again(folder: Path, network: LocalNetwork, base: Path) -> None:
    """Half a repair is never taken for a whole one: until the next, runs refuse, or what they do is right."""
    with copied(base, folder / "broken") as state:
        rows = rows_in(state)
        damages.orphan(state, 5)
        flip(state, damages.snapshot(state, 6))
        remove(state, part(state, 6))
        damages.change_item(state, 0, "outcome = 'not_found'")
        remove(state, entry(state, 3))
    refused = 0
    for steps in range(STEPS_MAX):
        with copied(folder / "broken", folder / f"copy-{steps}") as state:
            asked, log = network.pds_requests(), state.log(shard_of(state))
            doomed, life = mortal(state, steps)
            try:
                await repair(doomed)
            except KilledError:
                if log.damaged():
                    refused += 1
                    with pytest.raises(StateError, match="`backfill repair`"):
                        await finish(state)
                    assert network.pds_requests() == asked
                    assert verify_backfill(state) != []
            repaired = await repair(state)
            assert verify_backfill(state) == [], steps
            outcomes = [result.outcome.value for result, _ in log.read().dids.values()]
            assert sorted(outcomes) == ["complete", "pending", "pending", "pending"]
            assert rows_in(state) < rows
            if not life.is_over:
                assert repaired == Repaired()
                assert 5 < refused < steps
                await finish(state)
                assert rows_in(state) == rows
                assert_sound(state)
                return
    raise AssertionError("a repair without an end")


async def test_a_shard_that_somebody_works_on_is_left_out(folder: Path, base: Path) -> None:
    with copied(base, folder / "copy") as state:
        shard = shard_of(state)
        flip(state, part(state, 3))
        with held(state, shard) as owner:
            done = await repair(state)
        assert done.shards == {}
        assert owner in done.held[shard]
        assert verify_backfill(state) != []
        assert (await repair(state)).held == {}
        assert verify_backfill(state) == []


async def test_lost_numbers_are_never_used_again(folder: Path, base: Path) -> None:
    """Whoever was stalled before one of them finds it taken; what comes next comes after all that the ledger knew."""
    with copied(base, folder / "copy") as state:
        log = state.log(shard_of(state))
        folds = {seq: replace(log.read(whole=True), seq=seq) for seq in (4, 5, 6)}
        cut_off(state, 4)
        await repair(state)
        for seq in (5, 6, 7):
            with pytest.raises(FencedError):
                log.append(replace(folds[4], seq=seq - 1), epoch=2, run_id="zombie", scope="", refresh=0)
        dids = log.read().dids
        assert min(seq for did, (_, seq) in dids.items() if did in dids_lost(state)) > 6
        await finish(state)
        assert_sound(state)


def dids_lost(state: BackfillState) -> list[str]:
    return [
        did for did, (result, _) in fold_of(state, shard_of(state)).dids.items() if result.error_code == "part_lost"
    ]


async def test_a_log_cut_short_with_a_ledger_that_is_gone_too(folder: Path, network: LocalNetwork, base: Path) -> None:
    """Nobody knows any more that there was more; parts of an epoch that the log has lost are nobody's."""
    with copied(base, folder / "copy") as state:
        rows, shard = rows_in(state), shard_of(state)
        cut_off(state, 3)
        damages.no_ledger(state)
    with opened(folder / "copy" / "study.yaml", InstantTime().effects()) as state:
        assert any("it is not there" in problem for problem in verify_backfill(state))
        assert any("no log says that this part is live" in problem for problem in verify_backfill(state))
        repaired = await repair(state)
        assert len(repaired.shards[shard].reopened) == 2
        assert verify_backfill(state) == []
        asked = network.pds_requests()
        await finish(state)
        assert network.pds_requests() - asked == 2
        assert rows_in(state) == rows
        assert_sound(state)


async def test_what_can_not_be_fetched_any_more(folder: Path, network: LocalNetwork, base: Path) -> None:
    """The rows that are left stay, and are never called complete, in no later refresh either."""
    with copied(base, folder / "copy") as state:
        shard, (_, _, lost, other) = shard_of(state), dids_of(state)
        likes = uris_of(state, lost, "like")
        remove(state, part(state, 3, "follow"))
        assert sorted((await repair(state)).shards[shard].reopened) == sorted([lost, other])
        await network.control.status({"did": lost, "status": "deactivated"})
        for refresh in (False, True):
            came = await run_all(state, refresh=refresh)
            assert came.outcomes[lost] == "deactivated"
            assert uris_of(state, lost, "like") == likes
            result = fold_of(state, shard).dids[lost][0]
            assert dict(result.records_by_type) == {"like": len(likes)}
            assert (result.last_complete_rev, result.commit_cid, result.rev) == (None, None, None)
            assert_sound(state)
        await network.control.status({"did": lost, "status": "active"})
        assert (await run_all(state, refresh=True)).outcomes[lost] == "complete"
        assert "follow" in fold_of(state, shard).dids[lost][0].records_by_type
        assert_sound(state)


async def test_rows_whose_outcome_is_lost_stay_until_there_are_new_ones(
    folder: Path, network: LocalNetwork, base: Path
) -> None:
    """The entry that fetched them is void, a later rewrite has copied them; the ledger knows of what scope they are."""
    with copied(base, folder / "copy") as state:
        shard, second = shard_of(state), dids_of(state)[1]
        rows, before = rows_in(state), fold_of(state, shard).dids[second][0]
        assert before.handle
        remove(state, entry(state, 2))
        assert (await repair(state)).shards[shard].reopened == [second]
        result = fold_of(state, shard).dids[second][0]
        assert (result.outcome, result.rows_scope) == (Outcome.PENDING, before.rows_scope)
        assert (result.handle, result.pds_endpoint) == (before.handle, before.pds_endpoint)
        assert rows_in(state) == rows
        await network.set_faults([Fault(kind="status", status=500, did=second)])
        await finish(state)
        assert fold_of(state, shard).dids[second][0].outcome is Outcome.HTTP_ERROR
        assert rows_in(state) == rows
        assert_sound(state)
        await network.set_faults([])
        await network.control.status({"did": second, "status": "deactivated"})
        await finish(state)
        assert fold_of(state, shard).dids[second][0].outcome is Outcome.DEACTIVATED
        assert rows_in(state) == rows
        assert_sound(state)


async def test_rows_of_nobody_known_stay_too(folder: Path, network: LocalNetwork, base: Path) -> None:
    """As above, and the ledger is gone as well."""
    with copied(base, folder / "copy") as state:
        shard, second = shard_of(state), dids_of(state)[1]
        rows = rows_in(state)
        remove(state, entry(state, 2))
        damages.no_ledger(state)
    await network.control.status({"did": second, "status": "deactivated"})
    with opened(folder / "copy" / "study.yaml", InstantTime().effects()) as state:
        assert (await repair(state)).shards[shard].reopened == [second]
        await finish(state)
        assert fold_of(state, shard).dids[second][0].outcome is Outcome.DEACTIVATED
        assert rows_in(state) == rows
        assert_sound(state)


async def test_a_disk_that_gives_no_answer_is_no_lost_part(folder: Path, base: Path) -> None:
    """What can't be read now may be read tomorrow: nothing is voided or deleted for it."""
    with copied(base, folder / "copy") as state:
        with unreadable(state, part(state, 3)) as path:
            assert any(f"can't read {path}: Input/output error" in problem for problem in verify_backfill(state))
            with pytest.raises(StateError, match="Input/output error"):
                await repair(state)
        assert (await repair(state)).shards == {}
        assert verify_backfill(state) == []
        assert fold_of(state, shard_of(state)).voids == frozenset()


async def test_a_part_is_lost_when_it_is_so_twice(folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What flips on the way is good when it is read again."""
    with copied(base, folder / "copy") as state:
        read, flipped = LocalStore.open_input, []

        def flipping(store: LocalStore, key: str) -> Any:
            if key in flipped:
                return read(store, key)
            flipped.append(key)
            content = bytearray(store.get(key))
            content[0] ^= 1
            return pa.BufferReader(bytes(content))

        monkeypatch.setattr(LocalStore, "open_input", flipping)
        assert (await repair(state)).shards == {}
        assert flipped
        monkeypatch.undo()
        assert verify_backfill(state) == []


@contextmanager
def unreadable(state: BackfillState, key: str) -> Iterator[str]:
    """A file that the kernel has an error for."""
    path = Path(state.store.path(key))
    content = path.read_bytes()
    path.unlink()
    path.symlink_to("/proc/self/mem")
    yield str(path)
    path.unlink()
    path.write_bytes(content)


async def test_accounts_without_a_host_are_booked_again(folder: Path) -> None:
    async with tiny(repos=2, median=4, states={"unknown": 1, "not_a_did": 1}) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            flip(state, state.log(UNROUTABLE_SHARD).key(2))
            (problem,) = verify_backfill(state)
            assert f"log/{UNROUTABLE_SHARD}/00000002.json can't be read" in problem
            with pytest.raises(StateError, match="`backfill repair`"):
                await run_all(state)
            repaired = await repair(state)
            assert repaired.left == 0
            assert len(repaired.shards[UNROUTABLE_SHARD].gone) == 2
            assert_sound(state)
            outcomes = [result.outcome for result, _ in fold_of(state, UNROUTABLE_SHARD).dids.values()]
            assert sorted(outcomes) == ["invalid_did", "unresolvable"]
            assert await repair(state) == Repaired()


HEAVY = {f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.x{number}": 1 for number in range(200)}


async def test_very_many_that_have_lost_very_much_fit_their_entries(folder: Path) -> None:
    """Outcomes of 50 KiB, as accounts with hundreds of collections have."""
    async with tiny(repos=1, median=4) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            plans, shard = PlanStore(state.store), shard_of(state)
            dids = [f"did:plc:{number}" for number in range(60)]
            plan = plans.append(plans.read(), [PlannedDid(did=did, shard=shard) for did in dids], {"refresh": 0})
            assert plan is not None
            log = state.log(shard)
            fold = log.seal(log.read(), epoch=9, run_id="x")
            for start in range(0, 60, 10):
                results = {
                    did: RepoOutcome(
                        did=did, outcome=Outcome.COMPLETE, records_by_type={"post": 1}, records_seen_by_collection=HEAVY
                    )
                    for did in dids[start : start + 10]
                }
                fold = log.append(fold, epoch=9, run_id="x", scope="s", refresh=0, dids=results)
            repaired = await repair(state)
            assert sorted(repaired.shards[shard].reopened) == sorted(dids)
            sizes = [len(state.store.get(log.key(one.seq))) for one in entries_of(state, shard, fold.seq)]
            assert max(sizes) < ENTRY_MAX_BYTES
            assert_sound(state)


@pytest.mark.parametrize("damage", [remove, cut_short, blot], ids=["missing", "cut", "blotted"])
async def test_a_plan_that_is_damaged_is_named_and_stops_everything(
    folder: Path, base: Path, damage: Callable[[BackfillState, str], None]
) -> None:
    """It can't be made up from anything else: a backup, or planning again."""
    with copied(base, folder / "copy") as state:
        plans = PlanStore(state.store)
        plans.append(plans.read(), [], {"refresh": 0})
        damage(state, "plan/000001.parquet")
        for act in (verified, repair, finish):
            with pytest.raises(StateError, match=r"plan.*000001.*bring it back from a backup"):
                await act(state)


async def verified(state: BackfillState) -> None:
    verify_backfill(state)


async def test_a_plan_that_has_lost_its_last_generation(folder: Path) -> None:
    async with tiny(repos=3, median=4) as network:
        with state_of(folder, network, network.dids[:2]) as state:
            await run_all(state)
        with state_of(folder, network) as state:
            await run_all(state)
            remove(state, "plan/000002.parquet")
            (problem,) = verify_backfill(state)
            assert problem.startswith(f"plan/: the logs know {network.dids[2]}, and the plan doesn't; bring plan/")
            rows, asked = rows_in(state), network.pds_requests()
            await run_all(state)
            assert network.pds_requests() == asked, "planning again gives everybody the place that the log has"
            assert rows_in(state) == rows
            assert_sound(state)


async def test_what_else_lies_in_the_log_folder_is_let_be(folder: Path, base: Path) -> None:
    with copied(base, folder / "copy") as state:
        for name in ("log/.DS_Store", "log/notes/00000001.json", f"log/{shard_of(state)}/notes.txt"):
            path = root_of(state) / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
        assert verify_backfill(state) == []
        assert await repair(state) == Repaired()
        assert left_to_do(state) == []
