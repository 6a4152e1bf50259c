"""Leases under real shard runs: an owner that can't confirm, wall clocks that jump, a run that was killed at work."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.errors import FencedError, LeaseHeldError, StateError
from backfill_dagster.localnet import Fault
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster_tests.ledger.owners import HOUR
from backfill_dagster_tests.net.virtual_time import START, InstantTime
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, only_shard, run_one, state_of, tiny

RUN = "import sys; from backfill_dagster.cli.main import main; main(['run', sys.argv[1]])"

WAIT_SECONDS = 60
"""Against hanging only."""

STEP_BY_STEP = {"batch_size": 1, "concurrent_requests": 1, "lease_seconds": 6}


class SilentTable:
    """A table of leases that can stop answering whoever wants to write."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.is_silent = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def hurried(self, seconds: float) -> SilentTable:
        return self

    def compare_and_set(self, name: str, expected: Any, new: Any) -> bool:
        if self.is_silent:
            raise StateError("the table does not answer")
        return bool(self._table.compare_and_set(name, expected, new))


class WithLeases:
    """A ledger whose leases are in another table."""

    def __init__(self, ledger: Any, leases: Any) -> None:
        self._ledger = ledger
        self.leases = leases

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


@pytest.mark.parametrize("which", ["shard", "host"])
async def test_a_run_that_cannot_confirm_for_half_of_lease_seconds_stops_committing(folder: Path, which: str) -> None:
    async with tiny(repos=3) as network:
        with state_of(folder, network, processing=STEP_BY_STEP) as state:
            await plan_backfill(state, run_id="plan")
            table = SilentTable(state.ledger.leases if which == "shard" else state.host_leases[0])
            silenced: Any = (
                {"ledger": WithLeases(state.ledger, table)} if which == "shard" else {"host_leases": (table,)}
            )

            def silence(numbers: RunNumbers) -> None:
                if numbers.dids_done == 1:
                    table.is_silent = True
                    time.sleep(STEP_BY_STEP["lease_seconds"] / 2)

            leased = only_shard(state) if which == "shard" else only_shard(state).split("~")[0]
            with pytest.raises(FencedError, match=rf"the lease on (study/)?{leased} could not be confirmed for \d+ s"):
                await run_one(replace(state, **silenced), on_progress=silence)
            first = network.dids[0]
            assert set(fold_of(state).dids) == {first}, "what was committed before stands"
            assert [item.result.did for item in state.ledger.items(only_shard(state))] == [first]
            assert rows_by_author(state.config) == {first: expected_rows(network)[first]}
            came = await run_all(state)
            assert set(came.outcomes.values()) == {"complete"}
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


def with_wall_clock(state: BackfillState, offsets: tuple[float, ...]) -> BackfillState:
    """The state as a process has it whose wall clock is wrong by these seconds, look by look, over and over."""
    wrong = itertools.cycle(offsets)
    return replace(state, effects=replace(InstantTime().effects(), clock=lambda: START + next(wrong)))


JUMPS = {
    "ahead": (0.0, 0.0, 0.0, HOUR),
    "ahead and stays there": (0.0, *[HOUR] * 10_000),
    "behind and stays there": (HOUR, *[0.0] * 10_000),
    "both ways at each look": (HOUR, -HOUR),
}


@pytest.mark.parametrize("offsets", JUMPS.values(), ids=JUMPS.keys())
async def test_a_wall_clock_that_jumps_by_an_hour_changes_nothing(folder: Path, offsets: tuple[float, ...]) -> None:
    async with tiny(repos=3, states={"deactivated": 1}) as network:
        await network.set_faults([Fault(kind="stall", did=network.dids[2])])
        with state_of(folder, network, processing={"batch_size": 1, "lease_seconds": 6}) as state:
            owner = with_wall_clock(state, offsets)
            challenger = with_wall_clock(state, tuple(-offset for offset in offsets))
            await plan_backfill(owner, run_id="plan")
            reached = asyncio.Event()
            task = asyncio.create_task(run_one(owner, run_id="first", on_progress=lambda _: reached.set()))
            await asyncio.wait_for(reached.wait(), WAIT_SECONDS)
            with pytest.raises(LeaseHeldError, match="is held by run first of study"):
                await run_one(challenger)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await network.set_faults([])
            came = await run_all(challenger)
            assert sorted(came.outcomes.values()) == ["complete", "complete", "deactivated"]
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)
            assert (await run_all(owner)).done.results == {}


def run_in_the_background(config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(config)])


def make_a_zombie(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.live
async def test_a_run_that_is_killed_leaves_shard_and_host_free_at_once(folder: Path) -> None:
    async with tiny(repos=3) as network:
        await network.set_faults([Fault(kind="stall", did=network.dids[2])])
        host = f"localhost_{network.hosts[0].url.rpartition(':')[2]}"
        with state_of(folder, network, processing={"batch_size": 1, "lease_seconds": 3600}) as state:
            killed = run_in_the_background(state.config.path)
            try:
                while len(fold_of(state, f"{host}~0000").dids) < 2:
                    assert killed.poll() is None
                    await asyncio.sleep(0.02)
                held = [state.ledger.leases.read(f"study/{host}~0000"), state.host_leases[0].read(host)]
                assert [one and (one.pid, one.released) for one in held] == [(killed.pid, False)] * 2
            finally:
                make_a_zombie(killed)
            await network.set_faults([])
            came = await asyncio.wait_for(run_all(state), WAIT_SECONDS)
            assert killed.wait() == -signal.SIGKILL, "nobody had asked until now what became of it"
            assert came.done.held == {}
            assert set(came.outcomes.values()) == {"complete"}
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)
