"""A run worker that is killed: Dagster starts the run again, the shard goes on where it was, nobody is alerted."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.orchestration.webserver import RunInfo
from backfill_dagster_tests.live.living import LiveDagster, until
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=1, repos=6, median_records=15, max_records=40, states={})
COMMITTED = 2


@dataclass
class Came:
    """What came of the scene."""

    killed: RunInfo
    again: RunInfo
    asked_again: int
    ledger: dict[str, tuple[Any, ...]]
    alerts: str


def scene(live: LiveDagster) -> Came:
    with threaded_network(OPTIONS) as net:
        backfill = live.add("crash", net, processing={"shard_size": 6, "batch_size": 1, "concurrent_requests": 1})
        [key] = backfill.plan()
        backfill.faults(Fault(kind="stall", host=0, after=COMMITTED))
        run_id = backfill.launch(key)
        until(lambda: net.network.pds_requests() > COMMITTED and len(backfill.ledger()) == COMMITTED)
        before = net.network.pds_requests()
        os.kill(worker_pid(live, run_id), signal.SIGKILL)
        backfill.faults()
        backfill.wait_for_keys([key], times=2)
        again, killed = backfill.runs(key)
        looks = looks_so_far(live)
        until(lambda: looks_so_far(live) >= looks + 2, 120)  # one may have begun before the end, the next has not
        return Came(
            killed=killed,
            again=again,
            asked_again=net.network.pds_requests() - before,
            ledger=backfill.ledger(),
            alerts=(live.dagster.logs / "code_server.log").read_text(),
        )


def worker_pid(live: LiveDagster, run_id: str) -> int:
    with live.instance() as instance:
        for entry in instance.all_logs(run_id):
            if "pid" in (said := entry.message) and "Started process for run" in said:
                return int(said.rsplit("pid: ", 1)[1].split(")")[0])
    raise AssertionError("nobody said which process runs it")


def looks_so_far(live: LiveDagster) -> int:
    """How often the sensor of failed runs has looked and ended."""
    document = """query($s:SensorSelector!){sensorOrError(sensorSelector:$s){
      ...on Sensor{sensorState{ticks(limit:1000){status}}}}}"""
    selector = {"sensorName": "run_failed", "repositoryName": "__repository__"}
    found = live.web.query(document, s=selector | {"repositoryLocationName": "backfill_dagster"})
    return sum(tick["status"] != "STARTED" for tick in found["sensorOrError"]["sensorState"]["ticks"])


def test_the_run_was_started_again(came: Came) -> None:
    assert (came.killed.status, came.again.status) == ("FAILURE", "SUCCESS")
    assert came.again.tags["dagster/parent_run_id"] == came.killed.run_id
    assert came.killed.tags["dagster/will_retry"] == "true"


def test_it_has_the_tags_of_its_host(came: Came) -> None:
    assert came.again.tags["backfill/pds_host"] == came.killed.tags["backfill/pds_host"]


def test_what_was_committed_was_not_asked_for_again(came: Came) -> None:
    assert came.asked_again == 6 - COMMITTED
    assert [item[0] for item in came.ledger.values()] == ["complete"] * 6


def test_nobody_was_alerted(came: Came) -> None:
    about_it = [line for line in came.alerts.splitlines() if f"(run {came.killed.run_id})" in line]
    assert [line for line in about_it if "no alert, it is started again by itself" not in line] == []
