"""`run_query` and accounts that move: the rows of one shard, never of two, never of none, whatever is read first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.report.asking import Watch, ask, glob_rows, live_rows
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.mortal import KilledError, mortal
from backfill_dagster_tests.worker.tiny import Rows, fold_of, run_one, shard_keys, state_of, tiny
from backfill_dagster_tests.worker.upkeep import copied


@contextmanager
def fresh_answers(folder: Path, network: LocalNetwork) -> Iterator[BackfillState]:
    """A state that asks the directory anew each time."""
    with state_of(folder, network, identity={"cache_days": 0}) as state:
        yield state


async def move(network: LocalNetwork, state: BackfillState, did: str, to: str) -> None:
    """The account moves to the host of a shard, and a new plan knows it."""
    await network.control.move({"did": did, "to": f"http://{to.split('~')[0].replace('_', ':')}"})
    await state.effects.sleep(1)  # a document that was learnt this very instant would not be asked for again
    planned = await plan_backfill(state, run_id="plan", refresh=True)
    assert planned.rerouted == 1


def of(rows: Rows, did: str) -> Rows:
    return {row for row in rows if row[0].startswith(f"at://{did}/")}


def has_rows(state: BackfillState, key: str, did: str) -> bool:
    known = fold_of(state, key).dids.get(did)
    return known is not None and known[0].records_total > 0


@pytest.mark.parametrize("source", [0, 1])
@pytest.mark.parametrize("moment", [0, 1])
async def test_a_move_that_ends_between_two_logs(folder: Path, source: int, moment: int) -> None:
    async with tiny(repos=4, hosts=2) as network:
        with fresh_answers(folder, network) as state:
            await run_all(state)
            before, keys = glob_rows(state), shard_keys(state)
            old, new = keys[source], keys[1 - source]
            did = next(did for did in fold_of(state, old).dids if of(before, did))
            await move(network, state, did, new)
            watch = Watch(lambda operation, key: key == f"log/{keys[moment]}/", lambda: run_all(state))
            assert await watch.ask(state) == before == glob_rows(state)
            assert has_rows(state, new, did)
            assert not has_rows(state, old, did)
            # Read before the move, the old shard's parts are gone when they are opened.
            assert watch.attempts == (2 if (source, moment) == (0, 1) else 1)


async def test_a_second_move_that_ends_while_the_first_is_looked_at(folder: Path) -> None:
    """The last shard is read twice, for a DID that comes; between the two it lets go of another one."""
    async with tiny(repos=6, hosts=3) as network:
        with fresh_answers(folder, network) as state:
            await run_all(state)
            before, keys = glob_rows(state), shard_keys(state)
            comes, goes = (next(did for did in fold_of(state, key).dids if of(before, did)) for key in keys[1:])
            await move(network, state, comes, keys[2])
            await move(network, state, goes, keys[0])
            listed: list[str] = []

            def is_second_reading(operation: str, key: str) -> bool:
                listed.append(key)
                return key == f"log/{keys[2]}/" and listed.count(key) == 2

            async def both() -> None:
                await run_one(state, keys[0])
                await run_one(state, keys[2])

            watch = Watch(is_second_reading, both)
            assert await watch.ask(state) == before
            assert not has_rows(state, keys[2], goes)
            assert watch.attempts == 1


@pytest.mark.parametrize("source", [0, 1])
async def test_a_move_that_begins_and_ends_between_two_logs(folder: Path, source: int) -> None:
    """The plan that the query began with is not the one that the logs answer to."""
    async with tiny(repos=4, hosts=2) as network:
        with fresh_answers(folder, network) as state:
            await run_all(state)
            before, keys = glob_rows(state), shard_keys(state)
            did = next(did for did in fold_of(state, keys[source]).dids if of(before, did))

            async def everything() -> None:
                await move(network, state, did, keys[1 - source])
                await run_all(state)

            watch = Watch(lambda operation, key: key == f"log/{keys[1]}/", everything)
            assert await watch.ask(state) == before == glob_rows(state)
            assert not has_rows(state, keys[source], did)
            assert watch.attempts == 2


async def test_at_every_step_of_a_move(folder: Path) -> None:
    """Also between the new shard's entry and its ledger items, and before the old shard lets go."""
    async with tiny(repos=2, hosts=2, median=3) as network:
        with fresh_answers(folder, network) as state:
            await run_all(state)
            before, keys = glob_rows(state), shard_keys(state)
            old, did = next((key, did) for key in keys for did in fold_of(state, key).dids if of(before, did))
            (new,) = {*keys} - {old}
            await move(network, state, did, new)
        doubled = 0
        for steps in range(200):
            with copied(folder, folder / f"copy{steps}") as state:
                dying, life = mortal(state, steps)
                with suppress(KilledError):
                    await run_all(dying)
                assert live_rows(state) == before
                doubled += has_rows(state, old, did) and has_rows(state, new, did)
                if not life.is_over:
                    break
        assert doubled > 3
        assert not has_rows(state, old, did)


async def test_old_rows_stand_until_the_new_host_has_answered(folder: Path) -> None:
    async with tiny(repos=4, hosts=2) as network:
        with fresh_answers(folder, network) as state:
            await run_all(state)
            before, (old, new) = glob_rows(state), shard_keys(state)
            did = next(did for did in fold_of(state, old).dids if of(before, did))
            await move(network, state, did, new)
            assert live_rows(state) == before
            assert ask(state, f"SELECT shard, outcome, records_total FROM repos WHERE did = '{did}'") == [
                (new, "pending", 0)
            ]
            await network.set_faults([Fault(kind="status", status=500, did=did)])
            await run_one(state, new)
            assert live_rows(state) == before
            assert ask(state, f"SELECT shard, outcome FROM repos WHERE did = '{did}'") == [(new, "http_error")]


async def test_the_newest_of_several_old_shards(folder: Path) -> None:
    async with tiny(repos=6, hosts=3) as network:
        with fresh_answers(folder, network) as state:
            await run_all(state)
            keys = shard_keys(state)
            did = next(did for did in fold_of(state, keys[1]).dids if has_rows(state, keys[1], did))
            await move(network, state, did, keys[2])
            await network.control.add(
                {
                    "did": did,
                    "records": [{"collection": "app.bsky.feed.post", "record": {"text": "in the second home"}}],
                }
            )
            await run_one(state, keys[2])
            await move(network, state, did, keys[0])
            assert [has_rows(state, key, did) for key in keys] == [False, True, True]
            assert ask(state, f"SELECT text FROM post WHERE author = '{did}' AND text LIKE '%second home'") == [
                ("in the second home",)
            ]
            live_rows(state)


async def test_an_account_that_comes_back(folder: Path) -> None:
    """Its first shard had let go of it, and knows a last complete rev all the same."""
    async with tiny(repos=4, hosts=2) as network:
        with fresh_answers(folder, network) as state:
            await run_all(state)
            before, (old, new) = glob_rows(state), shard_keys(state)
            did = next(did for did in fold_of(state, old).dids if of(before, did))
            await move(network, state, did, new)
            await run_all(state)
            await move(network, state, did, old)
            assert live_rows(state) == before
            await network.set_faults([Fault(kind="status", status=500, did=did)])
            await run_one(state, old)
            assert fold_of(state, old).dids[did][0].last_complete_rev is not None
            assert live_rows(state) == before
            await network.set_faults([])
            await run_all(state)
            assert live_rows(state) == before == glob_rows(state)
