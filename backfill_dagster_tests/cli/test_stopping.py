"""Asked to stop: exit 130, what was committed stays, leases are let go, and the next run goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_dagster.cli.stopping import run_stoppable, stopped_once
from backfill_dagster.ledger import LeaseTable
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import BACKFILL, Network, wait_until
from backfill_dagster_tests.road import opened

STOPPING = "backfill: stopping; this can take some seconds"
STOPPED = "backfill: stopped; what was committed stays, run the same command to go on"


def slow_config(folder: Path, network: Network) -> Path:
    processing = {"requests_per_second": 5, "concurrent_requests": 2, "batch_size": 2}
    return network.write_config(folder, processing=processing)


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_run_that_is_stopped_goes_on_later(
    folder: Path, network: Network, backfill: Command, signals: list[signal.Signals]
) -> None:
    config = slow_config(folder, network)
    process = subprocess.Popen([*BACKFILL, "run", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list(folder.glob("data/study/log/localhost*/00000002.json")))
    for number in signals:
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert [line for line in err.splitlines() if line] == [STOPPING, STOPPED]

    assert backfill("verify", config).out == "clean\n"
    status = backfill("status", config, "--json")
    assert status.code == 3
    assert 0 < status.json["outcomes"]["pending"] < status.json["dids"]
    with opened(config) as state:
        for shard in status.json["shards"]:
            assert is_free(state.ledger.leases, f"study/{shard}")
            assert is_free(state.host_leases[0], shard.partition("~")[0])

    ran = backfill("run", config, "--json")
    assert ran.code == 0
    assert ran.json["requests"] <= status.json["left"]
    assert (ran.json["outcomes"], ran.json["records"]) == (network.outcomes(), network.records())
    assert backfill("verify", config).out == "clean\n"


def is_free(table: LeaseTable, name: str) -> bool:
    record = table.read(name)
    return record is None or record.released


def test_a_coroutine_is_cancelled_once_and_may_tidy_up() -> None:
    done: list[str] = []

    async def work(name: str) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
            done.append(name)
            raise

    with pytest.raises(KeyboardInterrupt):
        run_stoppable(work, "tidied up")
    assert done == ["tidied up"]


def test_a_coroutine_that_ends_by_itself_is_left_alone() -> None:
    async def work(number: int) -> int:
        return number + 1

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    assert run_stoppable(work, 1) == 2
    with pytest.raises(asyncio.CancelledError):
        run_stoppable(cancels_itself)
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(run_stoppable(work, 2)))
    thread.start()
    thread.join()
    assert answers == [3]


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signal handlers of before, whatever a test does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_block_is_stopped_once(handlers: None, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ended = False
    with pytest.raises(KeyboardInterrupt), stopped_once():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            ended = True
    assert ended
    assert signal.getsignal(number) is before


def test_nohup_is_respected(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopped_once():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
