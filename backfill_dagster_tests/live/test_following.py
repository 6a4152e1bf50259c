"""Nobody at the keyboard: the list changes, a sensor plans, a sensor launches, a refresh asks for what is new."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.orchestration.webserver import RunInfo
from backfill_dagster_tests.live.living import Backfill, LiveDagster, until
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=2, repos=8, median_records=10, max_records=30, states={})


@dataclass
class Came:
    """What came of the scene."""

    plans: list[RunInfo]
    runs: list[RunInfo]
    keys: list[str]
    outcomes: list[str]
    refreshed: list[RunInfo]
    outcomes_later: list[str]


def scene(live: LiveDagster) -> Came:
    with threaded_network(OPTIONS) as net:
        dids = net.network.dids
        source = live.configs / "follow.csv"
        write(source, dids[:4])
        backfill = live.add("follow", net, source={"type": "file", "path": str(source)}, auto_launch=True)
        live.turn_on("sensor", "source_changed_follow")
        until(lambda: plans(backfill, 1), 200)
        write(source, dids)
        until(lambda: plans(backfill, 2), 200)
        until(lambda: len(backfill.ledger()) == len(dids), 200)
        keys = live.web.partition_keys(backfill.job)
        runs = live.web.wait_for_runs(backfill.runs, count=len(keys), timeout_seconds=200)
        outcomes = [item[0] for item in backfill.ledger().values()]
        config = {"ops": {"follow__shard_plan": {"config": {"refresh": True}}}}
        live.web.launch_job("plan_follow", tags={"backfill/launch": "pending"}, run_config=config)
        until(lambda: plans(backfill, 3), 200)
        everything = live.web.wait_for_runs(backfill.runs, count=len(runs) + len(keys), timeout_seconds=200)
        return Came(
            plans=live.web.runs(job="plan_follow"),
            runs=runs,
            keys=keys,
            outcomes=outcomes,
            refreshed=[run for run in everything if run.run_id not in {one.run_id for one in runs}],
            outcomes_later=[item[0] for item in backfill.ledger().values()],
        )


def write(path: Path, dids: list[str]) -> None:
    path.write_text("did\n" + "\n".join(dids) + "\n")


def plans(backfill: Backfill, count: int) -> bool:
    runs = backfill.web.runs(job=f"plan_{backfill.name}")
    return len(runs) >= count and all(run.is_finished for run in runs)


def test_each_change_of_the_list_was_planned_once(came: Came) -> None:
    assert [run.status for run in came.plans] == ["SUCCESS"] * 3
    by_sensor = [run for run in came.plans if run.tags.get("dagster/sensor_name") == "source_changed_follow"]
    assert len(by_sensor) == 2


def test_what_the_plans_found_was_launched(came: Came) -> None:
    assert {run.partition_key for run in came.runs} == set(came.keys)
    assert {run.tags["dagster/sensor_name"] for run in came.runs} == {"new_shards_follow"}
    assert {run.status for run in came.runs} == {"SUCCESS"}
    assert came.outcomes == ["complete"] * 8


def test_a_refresh_launched_every_shard_and_found_nothing_new(came: Came) -> None:
    assert sorted(run.partition_key or "" for run in came.refreshed) == sorted(came.keys)
    assert came.outcomes_later == ["unchanged"] * 8
