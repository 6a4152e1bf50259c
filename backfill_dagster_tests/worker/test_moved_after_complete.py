"""An account that moves after it was complete: at every stage its rows are in one shard, and everybody says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.model import Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import verify_backfill
from backfill_dagster.standing import all_standings
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster.worker.retry import mark_for_retry
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import expected_rows, rows_by_author
from backfill_dagster_tests.worker.refreshes import left_to_do, run
from backfill_dagster_tests.worker.telling import Told, scope_of, state_at, told
from backfill_dagster_tests.worker.tiny import assert_sound, run_one, state_of, tiny

LIKES = {"record_types": ["app.bsky.feed.like"]}
A, B = "a", "b"


@dataclass(frozen=True)
class Street:
    """Two hosts, two accounts on each; the first one of host a is about to move."""

    network: LocalNetwork
    mover: str
    keys: Mapping[str, str]

    @property
    def rows(self) -> int:
        """How many the mover has."""
        return sum(expected_rows(self.network)[self.mover].values())

    async def move(self) -> None:
        await self.network.control.move({"did": self.mover, "to": 1})

    def seen(self, state: BackfillState) -> dict[str, int]:
        """Shard -> rows of the mover that a plain glob over records/ finds in its files."""
        found: Counter[str] = Counter()
        for path in Path(str(state.config.state_path)).glob("records/*/*.parquet"):
            (name,) = (name for name, key in self.keys.items() if path.name.startswith(f"{key}-"))
            authors = pq.ParquetFile(path).read(["author"]).column("author").to_pylist()
            found[name] += authors.count(self.mover)
        return dict(+found)

    def said(self, state: BackfillState) -> dict[str, tuple[int, int, bool]]:
        """Shard -> what its standing says: live rows, DIDs left behind, whether there is work."""
        plan = PlanStore(state.store).read()
        standings = {one.shard: one for one in all_standings(state, plan, scope_of(state))}
        return {
            name: (one.rows.total(), one.left_behind, one.has_work)
            for name, key in self.keys.items()
            if (one := standings[key])
        }

    def of_mover(self, state: BackfillState, *scopes: str) -> Told:
        """What its current shard says of the mover."""
        known = dict(zip(scopes, ("old", "new"), strict=False)) if scopes else {scope_of(state): "old"}
        return told(state, {did: did for did in self.network.dids}, known)[self.mover]


@pytest_asyncio.fixture
async def street() -> AsyncIterator[Street]:
    async with tiny(repos=4, hosts=2) as network:
        keys = [f"localhost_{host.url.rpartition(':')[2]}~0000" for host in network.hosts]
        yield Street(network, network.hosts[0].dids[0], dict(zip((A, B), keys, strict=True)))


def refusal(error: str) -> dict[str, Any]:
    return {"kind": "status", "status": 400, "body": json.dumps({"error": error})}


TROUBLES: dict[str, tuple[dict[str, Any], Outcome, bool]] = {
    # what the new host does, what comes of it, whether the next run tries again by itself
    "down": ({"kind": "down"}, Outcome.PENDING, True),
    "not there yet": (refusal("RepoNotFound"), Outcome.NOT_FOUND, False),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_stage_by_stage(folder: Path, street: Street, trouble: str) -> None:
    fault, outcome, tries_again = TROUBLES[trouble]
    network, rows = street.network, street.rows
    with state_of(folder, network) as state:
        await run(state)
        a, b = (street.said(state)[name][0] for name in (A, B))
        assert street.seen(state) == {A: rows}

        await street.move()
        await run(state, refresh=True)
        assert street.of_mover(state) == Told("moved", rows, 4, 1, "old", 1)
        assert street.seen(state) == {A: rows}
        assert street.said(state) == {A: (a, 0, False), B: (b, 0, False)}
        assert_sound(state)

        await plan_backfill(state, run_id="plan")
        assert street.seen(state) == {A: rows}
        assert street.said(state) == {A: (a, 0, False), B: (b, 0, True)}
        assert_sound(state)

        where = {"host": 1} if trouble == "down" else {"did": street.mover}
        await network.set_faults([Fault(**fault, **where)])
        await run(state)
        attempts = 2 if tries_again else 1
        assert street.of_mover(state) == Told(outcome.value, 0, 6, attempts, "old", 1)
        assert street.seen(state) == {A: rows}
        assert street.said(state) == {A: (a, 0, False), B: (b, 0, tries_again)}
        assert_sound(state)

        await network.set_faults([])
        if not tries_again:
            mark_for_retry(state, PlanStore(state.store).read(), outcomes={outcome})
        await run(state)
        assert street.of_mover(state) == Told("complete", rows, 8, 1, "old", 1)
        assert street.seen(state) == {B: rows}
        assert street.said(state) == {A: (a - rows, 0, False), B: (b + rows, 0, False)}
        assert rows_by_author(state.config) == expected_rows(network)
        assert left_to_do(state) == []
        assert_sound(state)


async def test_the_old_host_is_down_when_the_new_one_has_it(folder: Path, street: Street) -> None:
    """What is left to do there has nothing to do with whom it has lost."""
    network, rows = street.network, street.rows
    with state_of(folder, network) as state:
        await run(state)
        a, b = (street.said(state)[name][0] for name in (A, B))
        await street.move()
        await plan_backfill(state, run_id="plan", refresh=True)
        await run_one(state, street.keys[A])
        await plan_backfill(state, run_id="plan", refresh=True)
        await network.set_faults([Fault(kind="down", host=0)])
        ran = await run(state)
        assert sorted(ran.outcomes.values()) == ["complete", "pending", "unchanged", "unchanged"]
        assert street.seen(state) == {B: rows}
        assert street.said(state) == {A: (a - rows, 0, True), B: (b + rows, 0, False)}
        assert_sound(state)
        await network.set_faults([])
        await run(state)
        assert rows_by_author(state.config) == expected_rows(network)
        assert_sound(state)


async def moved_and_only_the_new_shard_run(state: BackfillState, street: Street) -> None:
    await run(state)
    await street.move()
    await run(state, refresh=True)
    await plan_backfill(state, run_id="plan")
    await run_one(state, street.keys[B])


async def test_shards_that_are_run_one_by_one(folder: Path, street: Street) -> None:
    """As partitions are: the old shard's rows go with its own next run, and until then everybody names them."""
    network, rows = street.network, street.rows
    with state_of(folder, network) as state:
        await moved_and_only_the_new_shard_run(state, street)
        left = f"{street.keys[A]}: {street.mover} has moved, and its new shard has its repo; "
        left += "the next run takes its rows out here"
        for trouble in ([], [Fault(kind="status", status=500, did=street.mover)]):
            # That a later attempt there fails doesn't undo it: the rows of the new shard stand.
            await network.set_faults(trouble)
            if trouble:
                mark_for_retry(state, PlanStore(state.store).read(), outcomes={Outcome.COMPLETE})
                await run_one(state, street.keys[B])
                assert street.of_mover(state).outcome == "http_error"
            assert street.seen(state) == {A: rows, B: rows}
            assert street.said(state)[A][1:] == (1, True)
            assert verify_backfill(state) == [left]
        await run_one(state, street.keys[A])
        assert street.seen(state) == {B: rows}
        assert street.said(state)[A][1:] == (0, False)
        assert_sound(state)


async def test_rows_left_behind_are_named_whatever_is_reopened(folder: Path, street: Street) -> None:
    with state_of(folder, street.network) as state:
        await moved_and_only_the_new_shard_run(state, street)
        before = verify_backfill(state)
        assert len(before) == 1
        mark_for_retry(state, PlanStore(state.store).read(), outcomes={Outcome.COMPLETE})
        assert street.seen(state) == {A: street.rows, B: street.rows}
        assert street.said(state)[A][1:] == (1, True)
        assert verify_backfill(state) == before


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_jumps_between_the_old_host_and_the_new_one(
    folder: Path, street: Street, hours: int
) -> None:
    time, rows = InstantTime(), street.rows
    with state_at(folder, street.network, time) as state:
        await run(state)
        await street.move()
        await run(state, refresh=True)
        time.now += hours * 3600
        await run(state)
        assert street.of_mover(state) == Told("complete", rows, 6, 1, "old", 1)
        assert street.seen(state) == {B: rows}
        assert_sound(state)


async def test_moved_in_another_scope(folder: Path, street: Street) -> None:
    """`moved` ends the old scope's rows as every terminal outcome does; the new ones come from the new host."""
    with state_of(folder, street.network) as state:
        await run(state)
        old = scope_of(state)
    await street.move()
    likes = expected_rows(street.network)[street.mover]["like"]
    with state_of(folder, street.network, **LIKES) as state:
        await run(state)
        assert street.of_mover(state, old, scope_of(state)) == Told("moved", 0, 4, 1, "new", 0)
        assert street.seen(state) == {}
        assert_sound(state)
        await run(state)
        assert street.of_mover(state, old, scope_of(state)).rows == likes
        assert street.seen(state) == {B: likes}
        assert_sound(state)


@pytest.mark.parametrize(
    ("fault", "outcome", "stay"),
    [
        ({"kind": "status", "status": 401}, "http_error", True),
        (refusal("RepoDeactivated"), "deactivated", False),
        (None, "complete", False),
    ],
    ids=["not ended", "ended without a repo", "ended with it"],
)
async def test_another_scope_after_the_move(
    folder: Path, street: Street, fault: dict[str, Any] | None, outcome: str, stay: bool
) -> None:
    """Rows of the old scope stay until an attempt has ended in the new one, in whatever shard."""
    network, rows = street.network, street.rows
    with state_of(folder, network) as state:
        await run(state)
        await street.move()
        await run(state, refresh=True)
        old = scope_of(state)
    likes = expected_rows(network)[street.mover]["like"]
    await network.set_faults([] if fault is None else [Fault(did=street.mover, **fault)])
    with state_of(folder, network, **LIKES) as state:
        await run(state)
        new = likes if outcome == "complete" else 0
        assert street.of_mover(state, old, scope_of(state)) == Told(outcome, new, 6, 1 + stay, "new", 1)
        assert street.seen(state) == ({A: rows} if stay else {B: new} if new else {})
        assert_sound(state)
