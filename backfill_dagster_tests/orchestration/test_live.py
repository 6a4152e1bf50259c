"""The whole of it: a daemon, a code server and a webserver, and every way that a shard run can be started.

Starting is slow and the backfill daemon wakes only every 30 s, so one fixture lives through a day with Dagster, and the
tests look at what came of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from backfill_dagster.config import load_config
from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.model import Shard
from backfill_dagster.orchestration.live import LocalDagster
from backfill_dagster.orchestration.webserver import RunInfo, Webserver
from backfill_dagster.plan import PlanStore
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings, total_outcomes
from backfill_dagster.state import open_state
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.road import write_config

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

JOB = "backfill_study"
ASSETS = ["app_bsky_feed_post", "app_bsky_graph_all", "repo_outcomes"]
LOCAL_YAML = Path(__file__).parents[2] / "deploy" / "local" / "dagster.yaml"
OPTIONS = LocalnetOptions(hosts=3, repos=15, median_records=15, max_records=40, states={"deactivated": 1})
LAUNCHED = "7d4f1e66-95c4-4d43-9b8d-1a2b3c4d5e6f"
LAUNCHED_UNKNOWN = "0c5b8f7e-2f27-4a39-8a3c-6a1f0e9d8c7b"


@dataclass
class Day:
    """What happened, and where."""

    dagster: LocalDagster
    net: ThreadedNetwork
    config: Path
    plan: RunInfo
    keys: list[str]
    statuses_at_first: dict[str, str | None]
    terminated: RunInfo | None = None
    host_lease_is_free: bool = False
    page: list[RunInfo] = field(default_factory=list)
    catalog: list[RunInfo] = field(default_factory=list)
    queued: list[RunInfo] = field(default_factory=list)
    statuses: dict[str, str | None] = field(default_factory=dict)
    assets: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @property
    def web(self) -> Webserver:
        return self.dagster.webserver

    @property
    def dead(self) -> list[str]:
        """Shards of the host that was down."""
        return sorted(key for key in self.keys if Shard.parse(key).host == Shard.parse(self.keys[-1]).host)

    @property
    def alive(self) -> list[str]:
        return sorted(set(self.keys) - set(self.dead))

    def cli(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "dagster", *arguments]
        done = subprocess.run(
            command, env=self.dagster.environ, cwd=self.dagster.home, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def cli_launch(self, run_id: str, key: str) -> None:
        tags = f'{{"dagster/partition": "{key}", "dagster/partition_set": "{JOB}_partition_set"}}'
        workspace = ("-w", str(self.dagster.workspace), "-l", "backfill_dagster")
        self.cli("job", "launch", *workspace, "-j", JOB, "--run-id", run_id, "--tags", tags)

    def faults(self, *faults: Fault) -> None:
        self.net.do(self.net.network.set_faults(faults))

    def host_number(self, key: str) -> int:
        ports = [info.url.rsplit(":", 1)[1] for info in self.net.network.hosts]
        return ports.index(Shard.parse(key).host.split("_")[1])

    def newest_run(self, key: str) -> RunInfo:
        return self.web.runs(tags={"dagster/partition": key})[0]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    home = tmp_path_factory.mktemp("home")
    configs = tmp_path_factory.mktemp("project")
    shutil.copy(LOCAL_YAML, home / "dagster.yaml")
    environ = {**os.environ, "BACKFILL_LOCK_DIR": str(tmp_path_factory.mktemp("locks"))}
    with threaded_network(OPTIONS) as net:
        config = write_config(
            configs,
            net.network.plc_url,
            net.network.dids,
            record_types=["app.bsky.feed.post", "app.bsky.graph.*"],
            processing={"shard_size": 3, "lease_seconds": 2},
        )
        (configs / "broken.yaml").write_text("backfill: {nmae: x}\n")
        with LocalDagster(home, config_dir=configs, environ=environ) as dagster:
            web = dagster.webserver
            plan = web.wait_for_run(web.launch_job("plan_study"), timeout_seconds=60)
            statuses = web.partition_statuses(JOB)
            lived = Day(dagster, net, config, plan, list(statuses), statuses)
            terminate_one(lived)
            page_catalog_and_cli(lived)
            the_host_is_back(lived)
            yield lived


def terminate_one(day: Day) -> None:
    """A run on a host that never answers, ended by a person."""
    key = day.keys[0]
    day.faults(Fault(kind="stall", host=day.host_number(key)))
    before = day.net.network.pds_requests()
    run_id = day.web.launch_job(JOB, tags={"dagster/partition": key})
    until(lambda: day.net.network.pds_requests() > before)
    day.web.terminate([run_id])
    day.terminated = day.web.wait_for_run(run_id, timeout_seconds=30)
    day.faults()
    with open_state(load_config(day.config), environ=day.dagster.environ) as state:
        lease = state.host_leases.read(Shard.parse(key).host)
        day.host_lease_is_free = lease is not None and lease.released


def page_catalog_and_cli(day: Day) -> None:
    """All partitions from the job's page, one more time from the catalog and the CLI; one host is down meanwhile."""
    day.faults(Fault(kind="down", host=day.host_number(day.keys[-1])))
    page = day.web.launch_partitions(JOB)
    catalog = day.web.launch_assets([["study", asset] for asset in ASSETS], [day.keys[0]])
    workspace = ("-w", str(day.dagster.workspace), "-l", "backfill_dagster")
    day.cli("job", "backfill", *workspace, "-j", JOB, "--partitions", day.keys[1], "--noprompt")
    day.page = day.web.wait_for_backfill(page, count=len(day.keys), timeout_seconds=100)
    day.catalog = day.web.wait_for_backfill(catalog, count=1, timeout_seconds=60)
    day.web.wait_for_runs(lambda: day.web.runs(tags={"dagster/partition": day.keys[1]}), count=2, timeout_seconds=60)
    day.faults()
    day.queued = [run for run in day.web.runs() if run.partition_key]
    day.statuses = day.web.partition_statuses(JOB)
    day.assets = {asset: day.web.asset_partitions(["study", asset]) for asset in ASSETS}


def the_host_is_back(day: Day) -> None:
    """Its two shards once more: one by `dagster job launch`, one round the queue by `dagster asset materialize`."""
    first, second = day.dead
    day.cli_launch(LAUNCHED, first)
    day.cli_launch(LAUNCHED_UNKNOWN, "nowhere.example~0000")
    day.web.wait_for_runs(lambda: day.web.runs(run_ids=[LAUNCHED, LAUNCHED_UNKNOWN]), count=2, timeout_seconds=60)
    module = ("-m", "backfill_dagster.definitions")
    select = " or ".join(f'key:"study/{asset}"' for asset in ASSETS)
    day.cli("asset", "materialize", *module, "--select", select, "--partition", second)
    day.cli("job", "execute", *module, "-j", JOB, "--tags", f'{{"dagster/partition": "{day.keys[0]}"}}')


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def assert_host_tag(run: RunInfo) -> None:
    assert run.partition_key is not None
    assert run.tags["backfill/pds_host"] == Shard.parse(run.partition_key).host
    assert run.tags["backfill/name"] == "study"


def test_the_plan_went_through_the_queue_and_made_partitions(day: Day) -> None:
    assert day.plan.status == "SUCCESS"
    assert len(day.keys) == 6
    hosts = {f"localhost_{info.url.rsplit(':', 1)[1]}" for info in day.net.network.hosts}
    assert {Shard.parse(key).host for key in day.keys} == hosts
    assert day.statuses_at_first == dict.fromkeys(day.keys)


def test_a_terminated_run_is_canceled_and_lets_its_leases_go(day: Day) -> None:
    assert day.terminated is not None
    assert day.terminated.status == "CANCELED"
    assert_host_tag(day.terminated)
    assert day.host_lease_is_free


def test_the_partitions_page_runs_them_all_and_a_dead_host_fails_its_own(day: Day) -> None:
    assert sorted(run.partition_key or "" for run in day.page) == sorted(day.keys)
    assert sorted(run.partition_key or "" for run in day.page if run.status == "FAILURE") == day.dead
    assert sorted(run.partition_key or "" for run in day.page if run.status == "SUCCESS") == day.alive


def test_the_asset_catalog_runs_a_partition(day: Day) -> None:
    assert [(run.job, run.status) for run in day.catalog] == [("__ASSET_JOB", "SUCCESS")]


def test_the_cli_backfills_a_partition(day: Day) -> None:
    runs = [run for run in day.queued if run.partition_key == day.keys[1]]
    assert [run.status for run in runs] == ["SUCCESS", "SUCCESS"]


def test_every_run_has_the_tags_of_its_host(day: Day) -> None:
    assert len(day.queued) == len(day.keys) + 3
    for run in day.queued:
        assert_host_tag(run)


def test_no_host_ever_had_two_runs_at_a_time(day: Day) -> None:
    for info in day.net.network.hosts:
        host = f"localhost_{info.url.rsplit(':', 1)[1]}"
        times = sorted(
            (run.started_at, run.ended_at)
            for run in day.queued
            if run.tags["backfill/pds_host"] == host and run.started_at is not None and run.ended_at is not None
        )
        assert len(times) >= 2
        assert all(ended <= started for (_, ended), (started, _) in pairwise(times)), times


def test_the_pages_show_what_became_of_each_partition(day: Day) -> None:
    assert day.statuses == dict.fromkeys(day.alive, "SUCCESS") | dict.fromkeys(day.dead, "FAILURE")
    for asset, found in day.assets.items():
        assert (sorted(found["materialized"]), sorted(found["failed"])) == (day.alive, day.dead), asset


def test_cli_launch_with_the_partition_tag(day: Day) -> None:
    [run] = day.web.runs(run_ids=[LAUNCHED])
    assert run.status == "SUCCESS"
    assert_host_tag(run)
    assert day.web.partition_statuses(JOB)[day.dead[0]] == "SUCCESS"


def test_cli_launch_with_an_unknown_key_fails(day: Day) -> None:
    [run] = day.web.runs(run_ids=[LAUNCHED_UNKNOWN])
    assert run.status == "FAILURE"


def test_cli_materialize_goes_round_the_queue_and_tags_itself(day: Day) -> None:
    run = day.newest_run(day.dead[1])
    assert (run.job, run.status) == ("__ASSET_JOB", "SUCCESS")
    assert_host_tag(run)


def test_cli_execute_goes_round_the_queue_and_tags_itself(day: Day) -> None:
    run = day.newest_run(day.keys[0])
    assert (run.job, run.status) == (JOB, "SUCCESS")
    assert_host_tag(run)


def test_in_the_end_every_account_has_its_outcome(day: Day) -> None:
    with open_state(load_config(day.config), environ=day.dagster.environ) as state:
        plan = PlanStore(state.store).read()
        standings = all_standings(state, plan, load_selection(state.config).scope)
    outcomes = {outcome.value: count for outcome, count in total_outcomes(standings).items() if count}
    assert outcomes == {"complete": 14, "deactivated": 1}


def test_the_three_processes_still_run(day: Day) -> None:
    day.dagster.check()
    assert day.web.location_error() is None


def test_reloading_keeps_the_location(day: Day) -> None:
    day.web.reload()
    until(lambda: day.web.location_error() is None)
