"""Every way through the queue: one config each, all at once on the same hosts, and the ledger is the same.

What goes round the queue is in `test_round_the_queue`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.model import Shard
from backfill_dagster.orchestration.webserver import RunInfo
from backfill_dagster_tests.live.living import ASSETS, Backfill, LiveDagster, fetchings, overlaps
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=2, repos=8, median_records=15, max_records=40, states={"deactivated": 1})


def from_the_jobs_page(backfill: Backfill, keys: list[str]) -> None:
    backfill.wait_for_backfill(backfill.web.launch_partitions(backfill.job), len(keys))


def from_the_catalog(backfill: Backfill, keys: list[str]) -> None:
    assets = [[backfill.name, asset] for asset in ASSETS]
    backfill.wait_for_backfill(backfill.web.launch_assets(assets, keys), len(keys))


def by_job_launch(backfill: Backfill, keys: list[str]) -> None:
    run_ids = [str(uuid.uuid4()) for _ in keys]
    for key, run_id in zip(keys, run_ids, strict=True):
        backfill.launch_by_cli(key, run_id)
    backfill.wait(*run_ids)


def by_job_backfill(backfill: Backfill, keys: list[str]) -> None:
    backfill.backfill_by_cli(*keys)
    backfill.wait_for_keys(keys)


def by_a_schedule(backfill: Backfill, keys: list[str]) -> None:
    backfill.live.turn_on("schedule", f"resume_{backfill.name}")
    backfill.wait_for_keys(keys)


def by_a_sensor(backfill: Backfill, keys: list[str]) -> None:
    backfill.wait_for_keys(keys)  # auto_launch


PATHS: dict[str, tuple[Callable[[Backfill, list[str]], None], dict[str, Any]]] = {
    "page": (from_the_jobs_page, {}),
    "catalog": (from_the_catalog, {}),
    "job_launch": (by_job_launch, {}),
    "job_backfill": (by_job_backfill, {}),
    "schedule": (by_a_schedule, {"schedule": {"resume_cron": "* * * * *"}}),
    "sensor": (by_a_sensor, {"auto_launch": True}),
}


@dataclass
class Came:
    """Path -> what its config came to."""

    keys: dict[str, list[str]] = field(default_factory=dict)
    runs: dict[str, list[RunInfo]] = field(default_factory=dict)
    ledgers: dict[str, dict[str, tuple[Any, ...]]] = field(default_factory=dict)
    statuses: dict[str, dict[str, str | None]] = field(default_factory=dict)
    assets: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    expected: dict[str, Any] = field(default_factory=dict)
    overlaps: list[Any] = field(default_factory=list)
    fetchings: int = 0


def scene(live: LiveDagster) -> Came:
    came = Came()
    with threaded_network(OPTIONS) as net, ThreadPoolExecutor(len(PATHS)) as pool:

        def take(path: str) -> None:
            go, changes = PATHS[path]
            backfill = live.add(f"by_{path}", net, processing={"shard_size": 4}, **changes)
            keys = came.keys[path] = backfill.plan()
            go(backfill, keys)
            came.runs[path] = backfill.runs()
            came.ledgers[path] = backfill.ledger()
            came.statuses[path] = backfill.web.partition_statuses(backfill.job)
            came.assets[path] = backfill.web.asset_partitions([backfill.name, "repo_outcomes"])

        for _ in pool.map(take, PATHS):
            pass
        came.expected = net.network.expected
        found = fetchings(live, [run for runs in came.runs.values() for run in runs])
        came.overlaps, came.fetchings = overlaps(found), len(found)
    return came


@pytest.mark.parametrize("path", PATHS)
def test_each_partition_ran_once_and_well(came: Came, path: str) -> None:
    assert len(came.keys[path]) == 2
    assert sorted(run.partition_key or "" for run in came.runs[path]) == sorted(came.keys[path])
    assert {run.status for run in came.runs[path]} == {"SUCCESS"}


@pytest.mark.parametrize("path", PATHS)
def test_each_run_has_the_tags_of_its_host(came: Came, path: str) -> None:
    for run in came.runs[path]:
        assert run.tags["backfill/pds_host"] == Shard.parse(run.partition_key or "").host
        assert run.tags["backfill/name"] == f"by_{path}"


@pytest.mark.parametrize("path", PATHS)
def test_both_pages_show_it(came: Came, path: str) -> None:
    assert came.statuses[path] == dict.fromkeys(came.keys[path], "SUCCESS")
    assert sorted(came.assets[path]["materialized"]) == sorted(came.keys[path])


@pytest.mark.parametrize("path", PATHS)
def test_the_ledger_is_the_same_whatever_the_path(came: Came, path: str) -> None:
    assert came.ledgers[path] == came.ledgers["page"]
    assert {did: item[0] for did, item in came.ledgers[path].items()} == {
        did: entry["outcome"] for did, entry in came.expected.items()
    }


def test_no_two_runs_of_a_host_ever_fetched_at_the_same_time(came: Came) -> None:
    assert came.fetchings == 2 * len(PATHS)
    assert came.overlaps == []
