"""A planner that is killed between its plan and Dagster's partitions: whoever plans next registers what is missing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from backfill_dagster.cli.main import run_command
from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster.orchestration.launching import turn
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.road import opened, write_config

OPTIONS = LocalnetOptions(hosts=2, repos=10, median_records=5, max_records=20, states={"not_a_did": 1})
SIZES = {"shard_size": 2}

KILLED = """
import os, signal, sys
import backfill_dagster.{module} as planner
planner.register_partitions = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
TERMINAL = KILLED.format(module="cli.plan") + "from backfill_dagster.cli.main import main; main(['plan', sys.argv[1]])"
JOB = (
    KILLED.format(module="orchestration.assets")
    + """
import dagster as dg
from pathlib import Path
from backfill_dagster.orchestration.build import build_definitions
with dg.DagsterInstance.get() as instance:
    job = build_definitions(Path(sys.argv[1]).parent).resolve_job_def("plan_study")
    job.execute_in_process(instance=instance)
"""
)


@pytest.fixture(scope="module")
def net() -> Iterator[ThreadedNetwork]:
    with threaded_network(OPTIONS) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dagster_home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def killed_after_its_plan(script: str, config: Path) -> None:
    process = subprocess.run([sys.executable, "-c", script, str(config)], capture_output=True, text=True, timeout=100)
    assert process.returncode == -signal.SIGKILL, process.stderr


def plan_by_job(config: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        job = build_definitions(config.parent).resolve_job_def("plan_study")
        assert job.execute_in_process(instance=instance).success


def plan_from_terminal(config: Path) -> None:
    assert run_command(["plan", str(config)]) == 0


def run_from_terminal(config: Path) -> None:
    assert run_command(["run", str(config), "--json"]) == 0


def registered() -> list[str]:
    with dg.DagsterInstance.get() as instance:
        return list(instance.get_dynamic_partitions("did_shards__study"))


def plan_of(config: Path) -> Plan:
    with opened(config) as state:
        return PlanStore(state.store).read()


@pytest.mark.live
@pytest.mark.parametrize(
    ("killed", "mends"),
    [(TERMINAL, plan_by_job), (TERMINAL, run_from_terminal), (JOB, plan_from_terminal)],
    ids=["terminal, then the job", "terminal, then a run", "job, then the terminal"],
)
def test_killed_between_its_first_plan_and_the_partitions(
    folder: Path, net: ThreadedNetwork, home: Path, killed: str, mends: Callable[[Path], None]
) -> None:
    config = write_config(folder, net.network.plc_url, net.network.dids, processing=SIZES)
    killed_after_its_plan(killed, config)
    plan = plan_of(config)
    assert (plan.generation, len(plan.shards())) == (1, 6)
    assert registered() == []
    mends(config)
    assert sorted(registered()) == list(plan.shards())
    assert registered() == sorted(plan.shards(), key=turn), "hosts by turns: a host has one run at a time"
    assert plan_of(config) == plan, "nothing new was planned for that"


@pytest.mark.live
def test_killed_between_a_later_plan_and_the_partitions(folder: Path, net: ThreadedNetwork, home: Path) -> None:
    """Old partitions stay as they are, also those that have nobody any more; new ones come in the plan's order."""
    dids = net.network.dids
    plan_from_terminal(write_config(folder, net.network.plc_url, dids[:4], processing=SIZES))
    before = registered()
    assert len(before) == 2
    config = write_config(folder, net.network.plc_url, dids[4:], processing=SIZES)
    killed_after_its_plan(TERMINAL, config)
    assert registered() == before
    plan_by_job(config)
    assert set(registered()) == set(plan_of(config).shards()) > set(before)
    assert [size for key, size in plan_of(config).shards().items() if key in before] == [0, 0]


@pytest.mark.live
def test_some_were_registered_and_some_not(folder: Path, net: ThreadedNetwork, home: Path) -> None:
    config = write_config(folder, net.network.plc_url, net.network.dids, processing=SIZES)
    killed_after_its_plan(TERMINAL, config)
    keys = list(plan_of(config).shards())
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("did_shards__study", keys[1::2])
        instance.add_dynamic_partitions("did_shards__study", ["of-another-time.example~0000"])
    plan_by_job(config)
    assert set(registered()) == {*keys, "of-another-time.example~0000"}


@pytest.mark.live
def test_what_was_mended_can_be_run(folder: Path, net: ThreadedNetwork, home: Path) -> None:
    config = write_config(folder, net.network.plc_url, net.network.dids, processing=SIZES)
    killed_after_its_plan(JOB, config)
    plan_by_job(config)
    job = build_definitions(folder).resolve_job_def("backfill_study")
    key = registered()[0]
    with dg.DagsterInstance.get() as instance:
        assert job.execute_in_process(instance=instance, partition_key=key).success
    with opened(config) as state:
        assert state.ledger.summaries()[key].outcomes == {"complete": 2}
