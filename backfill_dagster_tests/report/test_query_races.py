"""`run_query` while somebody writes: exact rows or an error, at every moment of a commit, a rewrite and a move."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.report.query import ATTEMPTS_MAX
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.report.asking import Watch, ask, ask_one, glob_rows, live_rows
from backfill_dagster_tests.road import opened, run_all
from backfill_dagster_tests.worker.mortal import KilledError, mortal
from backfill_dagster_tests.worker.tiny import POSTS_AND_LIKES, Rows, item_of, only_shard, state_of, tiny
from backfill_dagster_tests.worker.upkeep import copied

POST = "app.bsky.feed.post"
FEW_TYPES = ("post", "reply", "like")

COUNTS = """
    SELECT count(*), count(DISTINCT uri), (SELECT sum(records_total) FROM repos)
    FROM (SELECT uri FROM post UNION ALL SELECT uri FROM reply UNION ALL SELECT uri FROM "like")
"""


def reopen(state: BackfillState, *dids: str) -> None:
    state.ledger.mark_for_retry(only_shard(state), {did: item_of(state, did).seq for did in dids})


def posts_of(rows: Rows, did: str) -> list[str]:
    return sorted(uri for uri, _, _ in rows if uri.startswith(f"at://{did}/{POST}/"))


async def lose_a_post(network: LocalNetwork, rows: Rows, did: str) -> None:
    await network.control.delete({"did": did, "keys": [posts_of(rows, did)[0].split("/", 3)[3]]})


def finding_parts(operation: str, key: str) -> bool:
    return operation == "find"


async def test_at_every_step_of_a_run_that_replaces_rows(folder: Path) -> None:
    """The run dies at each step once: staged, committed, half published, half rewritten, half deleted."""
    async with tiny(repos=2, median=3) as network:
        did = network.dids[0]
        await network.control.add({"did": did, "records": [{"collection": POST, "record": {"text": "gone soon"}}]})
        with state_of(folder, network, record_types=POSTS_AND_LIKES) as state:
            await run_all(state)
            before = glob_rows(state)
            await lose_a_post(network, before, did)
            reopen(state, did)
        seen: list[Rows] = []
        for steps in range(200):
            with copied(folder, folder / f"copy{steps}") as state:
                dying, life = mortal(state, steps)
                with suppress(KilledError):
                    await run_all(dying)
                seen.append(live_rows(state, FEW_TYPES))
                assert ask_one(state, "SELECT sum(records_total) FROM repos") == len(seen[-1])
                if not life.is_over:
                    break
        after = glob_rows(state)
        assert len(before - after) == 1
        changed = seen.index(after)
        assert seen == [before] * changed + [after] * (len(seen) - changed)
        assert 3 < changed < len(seen) - 3


async def test_a_rewrite_in_the_middle_of_a_query(folder: Path) -> None:
    async with tiny(repos=3) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            before = glob_rows(state)
            did = next(did for did in network.dids if posts_of(before, did))

            async def rewrite() -> None:
                await lose_a_post(network, before, did)
                reopen(state, did)
                await run_all(state)

            watch = Watch(finding_parts, rewrite)
            rows = await watch.ask(state)
            assert rows == glob_rows(state) != before
            assert watch.attempts == 2


async def test_a_part_that_is_published_in_the_middle_of_a_query(folder: Path) -> None:
    async with tiny(repos=2) as network:
        for steps in range(200):
            again = folder / str(steps)
            again.mkdir()
            with state_of(again, network) as state:
                dying, _ = mortal(state, steps)
                with suppress(KilledError):
                    await run_all(dying)
                if live_rows(state, ["post"]) and state.store.staged():
                    break
        with opened(again / "study.yaml", InstantTime().effects()) as state:

            async def publish() -> None:
                state.store.publish([info.key for info in state.store.staged()])

            watch = Watch(finding_parts, publish)
            rows = await watch.ask(state)
            await run_all(state)
            assert rows == glob_rows(state)
            assert watch.attempts == 2


async def test_a_state_that_never_rests(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await run_all(state)

            async def rewrite() -> None:
                reopen(state, *network.dids)
                await run_all(state)

            watch = Watch(finding_parts, rewrite, times=ATTEMPTS_MAX)
            with pytest.raises(StateError, match=f"changed in each of {ATTEMPTS_MAX} attempts to read it: try again"):
                await watch.ask(state)
            assert watch.attempts == ATTEMPTS_MAX


async def test_a_part_that_is_lost_for_good(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            part = next(info for info in state.store.list("records/record_type=like/"))
            state.store.delete(part.key)

            async def nothing() -> None:
                pass

            watch = Watch(lambda operation, key: key == "log/", nothing)
            with pytest.raises(ObjectMissingError, match=rf"{part.key} is neither .* `backfill verify` says what"):
                await watch.ask(state)
            assert watch.attempts == 2
            assert ask_one(state, "SELECT count(*) FROM post") > 0


async def test_queries_beside_runs(folder: Path) -> None:
    """Posts only ever come, one at a time, in a repo that is fetched again and again."""
    rounds = 6
    async with tiny(repos=3) as network:
        with state_of(folder, network, record_types=POSTS_AND_LIKES, processing={"batch_size": 1}) as state:
            await run_all(state)
            at_first = len(glob_rows(state))
            is_over = asyncio.Event()

            def keep_asking() -> list[tuple[Any, ...]]:
                answers: list[tuple[Any, ...]] = []
                with opened(folder / "study.yaml") as same:
                    while not is_over.is_set():
                        with suppress(StateError):  # five attempts, a rewrite in each: that is an answer too
                            answers += ask(same, COUNTS)
                return answers

            asking = asyncio.create_task(asyncio.to_thread(keep_asking))
            for number in range(rounds):
                post = {"collection": POST, "record": {"text": f"number {number}"}}
                await network.control.add({"did": network.dids[0], "records": [post]})
                reopen(state, *network.dids[: 1 + number % 3])
                await run_all(state)
            is_over.set()
            answers = await asking
    assert len(answers) >= 3
    assert all(rows == distinct == booked for rows, distinct, booked in answers)
    counts = [rows for rows, _, _ in answers]
    assert counts == sorted(counts)
    assert set(counts) <= set(range(at_first, at_first + rounds + 1))
