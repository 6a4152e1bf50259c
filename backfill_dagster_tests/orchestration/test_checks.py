"""The checks of a shard: what they judge, and that each run leaves their results, a failed one too."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from backfill_dagster.config import load_config
from backfill_dagster.ledger import Lease
from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.model import Outcome, RepoOutcome, Shard
from backfill_dagster.orchestration.checks import verdicts_of
from backfill_dagster.report import ShardHealth
from backfill_dagster.state import open_state
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.orchestration.road import Road, failure_text

OPTIONS = LocalnetOptions(hosts=2, repos=14, median_records=20, max_records=60, states={"deactivated": 1})
CHECKS = ["drift", "error_rate", "unaccounted_dids"]


@pytest.fixture(scope="module")
def net() -> Iterator[ThreadedNetwork]:
    with threaded_network(OPTIONS) as made:
        yield made


@pytest.fixture
def road(tmp_path: Path, net: ThreadedNetwork) -> Iterator[Road]:
    with dg.DagsterInstance.ephemeral() as instance:
        road = Road(tmp_path, net, instance)
        yield road
        road.faults()


def recorded(road: Road, check: str, key: str) -> dg.AssetCheckEvaluation:
    """The newest result of a check for a partition."""
    check_key = dg.AssetCheckKey(dg.AssetKey(["study", "repo_outcomes"]), check)
    records = road.instance.event_log_storage.get_asset_check_execution_history(check_key, limit=20)
    for record in records:
        data = record.event.dagster_event.event_specific_data if record.event and record.event.dagster_event else None
        if isinstance(data, dg.AssetCheckEvaluation) and data.partition == key:
            return data
    raise AssertionError(f"no result of {check} for {key}")


def results(road: Road, key: str) -> dict[str, bool]:
    return {check: recorded(road, check, key).passed for check in CHECKS}


def summary(evaluation: dg.AssetCheckEvaluation) -> str:
    value: Any = evaluation.metadata["summary"].value
    return str(value)


def by_hand(road: Road, check: str) -> dg.JobDefinition:
    """What the catalog launches for a check alone."""
    key = dg.AssetCheckKey(dg.AssetKey(["study", "repo_outcomes"]), check)
    return road.defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=set(), asset_check_selection={key}
    )


def test_a_run_ends_with_its_checks(road: Road) -> None:
    key = road.plan()[0]
    result = road.run("backfill_study", key=key)
    assert sorted(one.check_name for one in result.get_asset_check_evaluations()) == CHECKS
    assert results(road, key) == dict.fromkeys(CHECKS, True)
    assert "| complete |" in summary(recorded(road, "drift", key))
    assert recorded(road, "unaccounted_dids", key).description == "each of 7 DIDs has its ledger item"


def test_a_shard_that_fails_has_its_checks_too(road: Road) -> None:
    first, second = road.plan()
    road.faults(Fault(kind="down", host=road.host_number(first)))
    assert not road.run("backfill_study", key=first, raise_on_error=False).success
    assert results(road, first) == {"drift": True, "error_rate": False, "unaccounted_dids": True}
    rate = recorded(road, "error_rate", first)
    assert rate.severity is dg.AssetCheckSeverity.WARN
    assert rate.description == "7 of 7 DIDs that were tried failed: 100.0%, 5.0% is allowed"
    assert "HostDown" in summary(rate)
    with pytest.raises(AssertionError):
        recorded(road, "error_rate", second)
    road.faults()
    road.run("backfill_study", key=first)
    assert results(road, first) == dict.fromkeys(CHECKS, True)


def test_dids_that_a_run_has_not_come_to_are_unaccounted(tmp_path: Path, net: ThreadedNetwork) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        road = Road(tmp_path, net, instance, processing={"quota": {"requests": 3}, "batch_size": 1})
        key = road.plan()[0]
        assert road.run("backfill_study", key=key).success
        found = recorded(road, "unaccounted_dids", key)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert found.description == "4 of 7 DIDs have no ledger item yet: run the partition again"
    assert found.metadata["unaccounted"].value == 4


def test_drift_is_found_by_hand_and_by_the_next_run(road: Road) -> None:
    key = road.plan()[0]
    road.run("backfill_study", key=key)
    ledger = load_config(road.path).ledger_path
    with sqlite3.connect(ledger) as connection:
        [(did,)] = connection.execute("SELECT did FROM results WHERE shard = ? LIMIT 1", [key]).fetchall()
        connection.execute("DELETE FROM results WHERE did = ?", [did])
    result = by_hand(road, "drift").execute_in_process(instance=road.instance, partition_key=key)
    assert [one.check_name for one in result.get_asset_check_evaluations()] == ["drift"]
    drift = recorded(road, "drift", key)
    assert (drift.passed, drift.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert drift.description == f"{key}: the ledger lacks {did}; the next run mends it, or `backfill repair`"
    road.run("backfill_study", key=key)
    assert recorded(road, "drift", key).passed


def test_a_lost_part_fails_the_run_and_its_drift_check_says_so(road: Road) -> None:
    key = road.plan()[0]
    road.run("backfill_study", key=key)
    records = Path(str(load_config(road.path).state_path)) / "records"
    lost = next(path for path in sorted(records.glob("*/*.parquet")) if key in path.name)
    lost.unlink()
    assert lost.name in failure_text(road.run("backfill_study", key=key, raise_on_error=False))
    drift = recorded(road, "drift", key)
    assert not drift.passed
    assert lost.name in (drift.description or "")


def test_a_shard_in_somebody_elses_hands_gets_no_results(road: Road) -> None:
    key = road.plan()[0]
    with open_state(load_config(road.path)) as state:
        lease = Lease.acquire(
            state.host_leases[0], Shard.parse(key).host, owner="somebody else", run_id="1", lease_seconds=1
        )
        try:
            road.run("backfill_study", key=key, raise_on_error=False)
        finally:
            lease.release()
    with pytest.raises(AssertionError):
        recorded(road, "drift", key)


def test_checks_by_hand_want_a_partition(road: Road) -> None:
    road.plan()
    result = by_hand(road, "drift").execute_in_process(instance=road.instance, raise_on_error=False)
    assert failure_text(result) == "the checks of study look at one shard: launch them with a partition"


def test_verdicts() -> None:
    worst = [RepoOutcome(did="did:plc:a", outcome=Outcome.HTTP_ERROR, attempts=4, http_status=500, error_code="X")]
    health = ShardHealth(
        shard="a.example~0000",
        dids=100,
        outcomes=Counter({Outcome.COMPLETE: 94, Outcome.HTTP_ERROR: 6}),
        tried=100,
        failed=6,
        drift=["one", "two"],
        unaccounted=[],
        worst=worst,
    )
    rate, drift, unaccounted = verdicts_of(health, 0.05)
    assert (rate.passed, drift.passed, unaccounted.passed) == (False, False, True)
    assert drift.description == "one (and 1 more)"
    assert drift.metadata["differences"].value == "- one\n- two"
    assert "| did:plc:a | http_error | 4 | 500 | X |" in str(rate.metadata["summary"].value)
    assert verdicts_of(health, 0.06)[0].passed, "the bound itself is allowed"


def test_nothing_tried_is_no_error() -> None:
    assert [one.passed for one in verdicts_of(ShardHealth(shard="a~0000", dids=0), 0.0)] == [True, True, True]


def test_a_difference_while_somebody_is_at_work_is_not_judged() -> None:
    health = ShardHealth(shard="a~0000", dids=1, drift=["one"], at_work="run 7 of study")
    drift = verdicts_of(health, 0.0)[1]
    assert (drift.passed, drift.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (drift.description or "").startswith("not judged: run 7 of study is at work on the shard")
