"""`backfill localnet` as a user starts it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import network_process


def test_it_says_when_it_is_ready_and_ends_well(
    folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    def stop_when_ready() -> None:
        while not Path("net/localnet.json").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop_when_ready)
    thread.start()
    ran = backfill("localnet", "--state", "net", "--hosts", 1, "--repos", 4, "--median-records", 3)
    thread.join()
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "ready: 1 PDS host, 4 DIDs; see net/localnet.json\n"


def test_the_size_of_repos_can_be_chosen(folder: Path) -> None:
    sizes = []
    for median in (5, 500):
        with network_process(folder / str(median), hosts=1, repos=10, median_records=median) as network:
            sizes.append(sum(network.records().values()))
    assert sizes[0] * 20 < sizes[1]
