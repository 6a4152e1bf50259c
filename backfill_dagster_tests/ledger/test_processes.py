"""Real processes on one SQLite file: one winner of each compare-and-set, no lost item, dead owners."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from backfill_dagster.errors import LeaseHeldError, StateError
from backfill_dagster.ledger import Lease, SqliteLedger
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome
from backfill_dagster_tests.ledger.contract import lease

SPAWN = multiprocessing.get_context("spawn")
PROCESSES = 4
ROUNDS = 25
NAME = "study/a~0000"


def _race(path: str, number: int, start: Barrier, said: Connection) -> None:
    """Each round: all read the same record, all try to replace it; the file itself is created in the first."""
    ledger, won = SqliteLedger(Path(path), "study"), []
    for turn in range(ROUNDS):
        before = ledger.leases.read(NAME)
        start.wait(60)
        if ledger.leases.compare_and_set(NAME, before, lease(turn, name=NAME, run_id=str(number))):
            won.append(turn)
        did = f"did:plc:{number}x{turn}"
        result = RepoOutcome(did=did, outcome=Outcome.COMPLETE)
        ledger.put([LedgerItem(backfill="study", shard="a~0000", seq=turn + 1, result=result)])
        start.wait(60)
    said.send(won)
    ledger.close()


def test_compare_and_set_has_one_winner_among_processes(tmp_path: Path) -> None:
    path, start = tmp_path / "ledger.sqlite", SPAWN.Barrier(PROCESSES)
    pipes = [SPAWN.Pipe(duplex=False) for _ in range(PROCESSES)]
    racers = [
        SPAWN.Process(target=_race, args=(str(path), number, start, pipe[1])) for number, pipe in enumerate(pipes)
    ]
    for racer in racers:
        racer.start()
    wins = [pipe[0].recv() if pipe[0].poll(90) else None for pipe in pipes]
    for racer in racers:
        racer.join(30)
        assert racer.exitcode == 0
    assert sorted(turn for won in wins for turn in won) == list(range(ROUNDS))
    ledger = SqliteLedger(path, "study")
    last = ledger.leases.read(NAME)
    assert last is not None
    assert ROUNDS - 1 in wins[int(last.run_id)]
    assert len(ledger.seqs("a~0000")) == PROCESSES * ROUNDS


def _create(folder: str, start: Barrier, said: Connection) -> None:
    problems = []
    for turn in range(ROUNDS):
        ledger = SqliteLedger(Path(folder) / str(turn) / "ledger.sqlite", "study")
        start.wait(60)
        try:
            ledger.bind_state("id")
        except StateError as error:
            problems.append(str(error))
        ledger.close()
    said.send(problems)


def test_processes_that_create_a_ledger_at_once(tmp_path: Path) -> None:
    start = SPAWN.Barrier(PROCESSES)
    pipes = [SPAWN.Pipe(duplex=False) for _ in range(PROCESSES)]
    creators = [SPAWN.Process(target=_create, args=(str(tmp_path), start, pipe[1])) for pipe in pipes]
    for creator in creators:
        creator.start()
    assert [pipe[0].recv() if pipe[0].poll(90) else None for pipe in pipes] == [[]] * PROCESSES
    for creator in creators:
        creator.join(30)
        assert creator.exitcode == 0


def _hold(path: str, said: Connection) -> None:
    held = Lease.acquire(
        SqliteLedger(Path(path), "study").leases, NAME, owner="run child", run_id="child", lease_seconds=3600
    )
    said.send(held.epoch)
    time.sleep(60)


def test_a_killed_owners_lease_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    hear, say = SPAWN.Pipe(duplex=False)
    owner = SPAWN.Process(target=_hold, args=(str(path), say))
    owner.start()
    assert hear.poll(60)
    assert hear.recv() == 1
    table = SqliteLedger(path, "study").leases
    with pytest.raises(LeaseHeldError, match="held by run child"):
        Lease.acquire(table, NAME, owner="run parent", run_id="parent", lease_seconds=3600, wait=False)
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGKILL)
    owner.join(30)
    with Lease.acquire(table, NAME, owner="run parent", run_id="parent", lease_seconds=3600, wait=False) as lease_:
        assert lease_.epoch == 2
