"""A host that stops answering within its shard: the run fails with reason, numbers and checks; later it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.model import Shard
from backfill_dagster.orchestration.webserver import RunInfo
from backfill_dagster_tests.live.living import ASSETS, LiveDagster, failure_text, until
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=2, repos=24, median_records=15, max_records=40, states={})
DIDS, ANSWERED = 12, 2


@dataclass
class Came:
    """What came of the scene."""

    keys: list[str]
    dead: str
    runs: list[RunInfo]
    text: str
    statuses: dict[str, str | None]
    assets: dict[str, dict[str, list[str]]]
    checks: dict[str, dict[str | None, dg.AssetCheckEvaluation]]
    observed: dict[str, Any]
    alerts: str
    again: list[RunInfo]
    asked_again: int
    ledger: dict[str, tuple[Any, ...]]

    @property
    def alive(self) -> str:
        [key] = [key for key in self.keys if key != self.dead]
        return key


def scene(live: LiveDagster) -> Came:
    with threaded_network(OPTIONS) as net:
        sizes = {"shard_size": DIDS, "batch_size": 1, "concurrent_requests": 1, "max_retries": 0}
        backfill = live.add("dead", net, processing=sizes)
        keys = backfill.plan()
        dead = keys[-1]
        number = backfill.host_number(dead)
        backfill.faults(Fault(kind="status", status=503, headers={"retry-after": "3600"}, host=number, after=ANSWERED))
        runs = backfill.wait_for_backfill(live.web.launch_partitions(backfill.job), len(keys))
        [failed] = [run for run in runs if run.status == "FAILURE"]
        text = failure_text(live, failed.run_id)
        log = live.dagster.logs / "code_server.log"
        until(lambda: f"(run {failed.run_id})" in log.read_text(), 120)
        came = Came(
            keys=keys,
            dead=dead,
            runs=runs,
            text=text,
            statuses=live.web.partition_statuses(backfill.job),
            assets={asset: live.web.asset_partitions(["dead", asset]) for asset in ASSETS},
            checks={
                check: live.check_results(["dead", "repo_outcomes"], check)
                for check in ("error_rate", "drift", "unaccounted_dids")
            },
            observed=observed(live, dead),
            alerts=log.read_text(),
            again=[],
            asked_again=0,
            ledger={},
        )
        backfill.faults()
        before = net.network.pds_requests()
        came.again = backfill.wait_for_backfill(live.web.launch_partitions(backfill.job, keys, only_failed=True), 1)
        came.asked_again = net.network.pds_requests() - before
        came.ledger = backfill.ledger()
        return came


def observed(live: LiveDagster, key: str) -> dict[str, Any]:
    with live.instance() as instance:
        for record in instance.fetch_observations(dg.AssetKey(["dead", "repo_outcomes"]), limit=10).records:
            if record.asset_observation is not None and record.asset_observation.partition == key:
                return {name: value.value for name, value in record.asset_observation.metadata.items()}
    raise AssertionError("nothing was observed")


def test_its_shard_fails_and_the_other_does_not(came: Came) -> None:
    assert {run.partition_key: run.status for run in came.runs} == {came.dead: "FAILURE", came.alive: "SUCCESS"}
    assert came.statuses == {came.dead: "FAILURE", came.alive: "SUCCESS"}
    for asset, found in came.assets.items():
        assert (found["materialized"], found["failed"]) == ([came.alive], [came.dead]), asset


def test_the_failure_says_why_and_when_to_try_again(came: Came) -> None:
    assert came.text.startswith(f"{came.dead}: the host ")
    assert "503" in came.text
    assert f"{DIDS - ANSWERED} of {DIDS} DIDs are left; run the partition again after 20" in came.text
    assert came.text.endswith("Z, as the host asks")
    [failed] = [run for run in came.runs if run.status == "FAILURE"]
    assert failed.tags["backfill/retry_after"] in came.text


def test_the_numbers_so_far_are_observed(came: Came) -> None:
    assert (came.observed["repos_complete"], came.observed["repos_left"]) == (ANSWERED, DIDS - ANSWERED)
    assert came.observed["dagster/partition_row_count"] == DIDS


def test_its_checks_are_recorded_too(came: Came) -> None:
    passed = {check: {key: one.passed for key, one in found.items()} for check, found in came.checks.items()}
    assert passed["error_rate"] == {came.dead: False, came.alive: True}
    assert passed["drift"] == {came.dead: True, came.alive: True}
    assert passed["unaccounted_dids"] == {came.dead: False, came.alive: True}
    # Eight in a row without an answer end the run; it hasn't come to the others.
    assert came.checks["unaccounted_dids"][came.dead].metadata["unaccounted"].value == DIDS - ANSWERED - 8


def test_the_alert_says_the_same(came: Came) -> None:
    assert f"backfill_dead of partition {came.dead} failed: {came.text}" in came.alerts


def test_from_failure_runs_the_failed_partition_only_and_fetches_the_rest_only(came: Came) -> None:
    assert [(run.partition_key, run.status) for run in came.again] == [(came.dead, "SUCCESS")]
    assert Shard.parse(came.dead).host == came.again[0].tags["backfill/pds_host"]
    assert came.asked_again == DIDS - ANSWERED
    assert [item[0] for item in came.ledger.values()] == ["complete"] * 2 * DIDS
