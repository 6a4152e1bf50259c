"""Leases among real processes: killed, turned into zombies, stopped and woken, asked for at once, with wrong clocks."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from backfill_dagster.errors import LeaseHeldError
from backfill_dagster.ledger.process_identity import own_identity
from backfill_dagster_tests.ledger.owners import (
    HOUR,
    JUMPING,
    NAME,
    RIGHT,
    challenge,
    owner,
    record_of,
    table_of,
    take,
)

LONG_SECONDS = 3600
CLOCKS = [RIGHT, JUMPING, (0.0, HOUR), (0.0, -HOUR)]
CLOCK_NAMES = ["right", "jumping", "an hour ahead and back", "an hour behind and back"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.mark.parametrize("is_reaped", [True, False], ids=["gone", "zombie"])
def test_a_process_killed_with_9_loses_it_at_once(path: Path, is_reaped: bool) -> None:
    with owner(path, lease_seconds=LONG_SECONDS) as first:
        with pytest.raises(LeaseHeldError, match=f"held by run first, pid {first.pid}; wait for it to end"):
            take(path, "second", LONG_SECONDS, wait=False)
        first.kill()
        if is_reaped:
            first.process.join()
        with take(path, "second", LONG_SECONDS, wait=False) as lease:
            assert lease.epoch == 2


def test_a_killed_process_whose_pid_another_one_has_got_loses_it_at_once(path: Path) -> None:
    with owner(path, lease_seconds=LONG_SECONDS) as first:
        first.kill()
        first.process.join()
    dead = record_of(path)
    living = own_identity()
    assert dead.pid_started != living.pid_started
    again = replace(dead, pid=living.pid)
    assert table_of(path).compare_and_set(NAME, dead, again)
    with take(path, "second", LONG_SECONDS, wait=False) as lease:
        assert lease.epoch == 2


@pytest.mark.parametrize("offsets", CLOCKS, ids=CLOCK_NAMES)
def test_a_stopped_process_loses_it_after_lease_seconds_and_stops_by_itself_when_it_wakes_up(
    path: Path, offsets: tuple[float, ...]
) -> None:
    with owner(path, lease_seconds=1, offsets=offsets) as first:
        first.stop()
        with pytest.raises(LeaseHeldError, match="held by run first"):
            take(path, "second", 1, wait=False)
        began = time.monotonic()
        lease = take(path, "second", 1)
        assert time.monotonic() - began >= 1, "its owner was alive: it takes the whole of lease_seconds"
        first.wake()
        assert first.ask("check").startswith(f"FencedError: the lease on {NAME} ")
        assert first.ask("release") == "False"
        assert first.ask("check").startswith(f"FencedError: the lease on {NAME} ")
        lease.beat()
        lease.check()
        record = record_of(path)
        assert (record.run_id, record.epoch, record.released) == ("second", 2, False)
        assert lease.release() is True


@pytest.mark.parametrize("offsets", CLOCKS, ids=CLOCK_NAMES)
def test_a_beating_owner_keeps_it_and_is_named(path: Path, offsets: tuple[float, ...]) -> None:
    with owner(path, lease_seconds=6, offsets=offsets) as first:
        said = challenge(path, ["second", "third"], lease_seconds=6, offsets=offsets)
        for _, problem in said.values():
            assert problem.startswith(f"LeaseHeldError: {NAME} is held by run first, pid {first.pid}; wait for it")
        assert first.ask("check") == ""
        assert first.ask("release") == "True"


@pytest.mark.parametrize("offsets", [RIGHT, JUMPING], ids=["right", "jumping"])
def test_of_processes_that_challenge_a_stopped_owner_at_once_one_wins(path: Path, offsets: tuple[float, ...]) -> None:
    with owner(path, lease_seconds=1, offsets=offsets) as first:
        first.stop()
        said = challenge(path, ["b", "c", "d"], lease_seconds=3, offsets=offsets)
        winner = winner_of(said)
        assert said[winner][0] >= 3, "the longer patience counts"
        assert (record_of(path).run_id, record_of(path).epoch) == (winner, 2)
        first.wake()
        assert first.ask("check").startswith("FencedError")


def test_of_processes_that_ask_for_a_free_lease_at_once_one_wins(path: Path) -> None:
    winner_of(challenge(path, ["b", "c", "d"], lease_seconds=6))
    assert record_of(path).epoch == 1


def winner_of(said: dict[str, tuple[float, str]]) -> str:
    """The only one that got it; the others name it."""
    (winner,) = (run for run, (_, problem) in said.items() if not problem)
    for run in set(said) - {winner}:
        assert said[run][1].startswith(f"LeaseHeldError: {NAME} is held by run {winner}, pid ")
    return winner
