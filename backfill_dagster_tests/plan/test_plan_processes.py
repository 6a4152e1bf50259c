"""Real processes that plan the same backfill at the same moment, each with its own look at the source."""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from backfill_dagster.errors import LeaseHeldError
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import verify_backfill
from backfill_dagster_tests.plan.plan_rules import PlanRules
from backfill_dagster_tests.plan.planners import GONE, Directory, plan_with, with_shard_size
from backfill_dagster_tests.road import opened, write_config

SPAWN = multiprocessing.get_context("spawn")
PROCESSES = 3
ROUNDS = 6
SHARD_SIZE = 3
WAIT_SECONDS = 90
"""Against hanging only."""

DIDS = [f"did:plc:{first * 12}{second * 12}" for first in "abcdef" for second in "ghij"]


def listed_by(number: int, turn: int) -> list[str]:
    """What one of them sees in the source: something else than the others, and than the turn before."""
    return [did for index, did in enumerate(DIDS) if (index + number) % (turn + 2)]


def config_of(folder: Path, number: int, turn: int) -> Path:
    own = folder / f"{number}-{turn}"
    own.mkdir()
    changes = {"state": {"path": str(folder / "state")}, "storage": {"type": "sqlite", "path": str(folder / "ledger")}}
    return write_config(own, "http://localhost:1", listed_by(number, turn), processing={"lease_seconds": 1}, **changes)


def directory() -> Directory:
    hosts = {did: f"{'ab'[index % 2]}.example" for index, did in enumerate(DIDS)}
    return Directory(hosts | dict.fromkeys(DIDS[::7], GONE))


def _plan_again_and_again(folder: str, number: int, start: Barrier, said: Connection) -> None:
    problems = []
    for turn in range(ROUNDS):
        path = config_of(Path(folder), number, turn)
        with opened(path) as state:
            start.wait(WAIT_SECONDS)
            try:
                result = asyncio.run(plan_with(with_shard_size(state, SHARD_SIZE), directory()))
            except LeaseHeldError as held:
                if f"{UNROUTABLE_SHARD} is held by plan " not in str(held):
                    problems.append(str(held))
                continue
            listed = {one.did for one in result.plan.rows() if not one.delisted}
            if listed != set(listed_by(number, turn)):
                problems.append(f"planner {number}, turn {turn}: its plan lists {sorted(listed)}")
    said.send(problems)


@pytest.mark.timeout(300)
def test_processes_that_plan_at_once(folder: Path) -> None:
    start = SPAWN.Barrier(PROCESSES)
    pipes = [SPAWN.Pipe(duplex=False) for _ in range(PROCESSES)]
    planners = [
        SPAWN.Process(target=_plan_again_and_again, args=(str(folder), number, start, pipe[1]), daemon=True)
        for number, pipe in enumerate(pipes)
    ]
    for planner in planners:
        planner.start()
    assert [hear.recv() if hear.poll(WAIT_SECONDS) else None for hear, _ in pipes] == [[]] * PROCESSES
    for planner in planners:
        planner.join(30)
        assert planner.exitcode == 0
    rules = PlanRules()
    for turn in range(ROUNDS):
        for number in range(PROCESSES):
            rules.source_is(listed_by(number, turn))
    with opened(config_of(folder, 0, ROUNDS)) as state:
        generations = state.store.list("plan/")
        assert len(generations) >= ROUNDS, "in each turn somebody had something new"
        for info in generations:
            rules.committed(state.store.get(info.key), SHARD_SIZE, keep_sources=True)
        assert {one.did: one for one in PlanStore(state.store).read().rows()} == rules.current
        final = asyncio.run(plan_with(with_shard_size(state, SHARD_SIZE), directory())).plan
        assert set(rules.current) <= {one.did for one in final.rows()}
        booked = {item.result.did: item.result.outcome for item in state.ledger.items(UNROUTABLE_SHARD)}
        reserved = [one.did for one in final.dids(UNROUTABLE_SHARD) if not one.delisted]
        assert reserved
        assert {booked[did] for did in reserved} == {Outcome.UNRESOLVABLE}
        assert verify_backfill(state) == []
