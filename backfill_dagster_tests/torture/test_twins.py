"""Two starts of one shard at the same moment, on every road that starts one: one works, the other names who does.

Real processes. A host that says 429 holds the one that works until the other has ended; then it says yes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.localnet.faults import GET_REPO
from backfill_dagster_tests.cli.network import BACKFILL, wait_until
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.repository import ROOT
from backfill_dagster_tests.road import expected_rows, opened, rows_by_author, write_config
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, only_shard

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

OPTIONS = LocalnetOptions(hosts=1, repos=6, seed=9, median_records=10, max_records=30, states={})
SETTINGS = {"processing": {"batch_size": 2, "concurrent_requests": 1, "lease_seconds": 3}}
LATER = Fault(kind="rate_limit", path=GET_REPO, seconds=1)
HELD = re.compile(r"is held by run (?P<run>[\w-]+) of study, pid (?P<pid>\d+) on \S+; wait for it to end")
END_SECONDS = 90


class Started:
    """A command as a process, with what it says in a file."""

    def __init__(self, command: list[str], said: Path, environ: dict[str, str]) -> None:
        self._said = said
        with said.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environ, cwd=said.parent, start_new_session=True
            )

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        return self._said.read_text()

    def end(self) -> int:
        return self.process.wait(END_SECONDS)

    def kill(self) -> None:
        """`kill -9`, children too."""
        if not self.has_ended:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Place:
    """A folder with a config, a network, a Dagster home; and the processes that were started there."""

    folder: Path
    net: ThreadedNetwork
    config: Path
    started: list[Started] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        own = {
            "BACKFILL_LOCK_DIR": str(self.folder / "locks"),
            "BACKFILL_CONFIG_DIR": str(self.folder),
            "DAGSTER_HOME": str(self.folder / "home"),
        }
        return {**os.environ, **own}

    def start(self, *command: str) -> Started:
        said = self.folder / f"said-{len(self.started)}.txt"
        environ = self.environ
        if command[0] == "run":
            del environ["DAGSTER_HOME"]  # registering partitions is no part of this, and slow
        self.started.append(Started([*self._program(command[0]), *command], said, environ))
        return self.started[-1]

    def _program(self, command: str) -> list[str]:
        return [sys.executable, "-m", "dagster"] if command == "job" else BACKFILL

    def backfill_run(self) -> Started:
        return self.start("run", str(self.config), "--json")

    def dagster_run(self, shard: str) -> Started:
        tags = json.dumps({"dagster/partition": shard})
        return self.start(
            "job", "execute", "-m", "backfill_dagster.definitions", "-j", "backfill_study", "--tags", tags
        )

    def faults(self, *faults: Fault) -> None:
        self.net.do(self.net.network.set_faults(faults))

    def assert_all_is_there(self) -> None:
        with opened(self.config) as state:
            assert rows_by_author(state.config) == expected_rows(self.net.network)
            assert_sound(state)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with threaded_network(OPTIONS) as net:
        (tmp_path / "home").mkdir()
        shutil.copy(ROOT / "deploy" / "local" / "dagster.yaml", tmp_path / "home")
        made = Place(tmp_path, net, write_config(tmp_path, net.network.plc_url, net.network.dids, **SETTINGS))
        try:
            yield made
        finally:
            for one in made.started:
                one.kill()


def worker_and_other(one: Started, other: Started) -> tuple[Started, Started]:
    """Which of the two works, once the other has ended."""
    wait_until(lambda: one.has_ended or other.has_ended, seconds=END_SECONDS)
    assert not (one.has_ended and other.has_ended), one.said + other.said
    return (other, one) if one.has_ended else (one, other)


def assert_names(said: str, owner: Started) -> None:
    named = HELD.search(said)
    assert named is not None, said
    assert int(named["pid"]) == owner.process.pid


def test_two_backfill_runs_from_nothing(place: Place) -> None:
    place.faults(LATER)
    worker, other = worker_and_other(place.backfill_run(), place.backfill_run())
    assert other.end() == 3
    [held] = json.loads(other.said)["held"].values()
    assert_names(held, worker)
    place.faults()
    assert worker.end() == 0, worker.said
    assert json.loads(worker.said)["outcomes"] == {"complete": OPTIONS.repos}
    place.assert_all_is_there()


def test_a_dagster_run_against_backfill_run_then_killed_and_retried_twice_at_once(place: Place) -> None:
    shard = planned_shard(place)
    place.faults(replace(LATER, after=3))
    first = place.dagster_run(shard)
    batch = place.folder / "data" / "study" / "log" / shard / "00000002.json"
    wait_until(lambda: batch.exists() or first.has_ended, seconds=END_SECONDS)
    assert not first.has_ended, first.said

    other = place.backfill_run()
    assert other.end() == 3
    [held] = json.loads(other.said)["held"].values()
    assert_names(held, first)

    first.kill()
    worker, twin = worker_and_other(place.dagster_run(shard), place.dagster_run(shard))
    assert twin.end() == 1
    assert_names(twin.said, worker)
    place.faults()
    assert worker.end() == 0, worker.said
    place.assert_all_is_there()
    with opened(place.config) as state:
        runs = Counter(result.run_id for result, _ in fold_of(state, shard).dids.values())
    assert sorted(runs.values()) == [2, 4], "what the killed run had committed was fetched again"


def planned_shard(place: Place) -> str:
    """Plan from the terminal, which registers the shard with Dagster too."""
    plan = place.start("plan", str(place.config))
    assert plan.end() == 0, plan.said
    with opened(place.config) as state:
        return only_shard(state)
