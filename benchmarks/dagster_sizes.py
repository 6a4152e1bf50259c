"""Dagster with 10,000 partitions: planning them, showing them, launching them, and what each run costs.

`python -m benchmarks.dagster_sizes` runs only these; most of the time goes into the runs of the partition backfill.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from backfill_dagster.config import load_config
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.live import LocalDagster
from backfill_dagster.orchestration.partitions import register_partitions
from backfill_dagster.orchestration.webserver import RUNS_MAX, Webserver
from benchmarks import dagster_load
from benchmarks.dagster_home import Home, temporary_home
from benchmarks.dagster_page import ask_page
from benchmarks.dagster_runs import RunTimes, count_runs, mean_at_work, run_times
from benchmarks.measure import Figure, figure_of, seconds_of
from benchmarks.table import print_table
from benchmarks.tiny_network import tiny_network

NAME = "study"
JOB = names.backfill_job(NAME)
PARTITIONS = 10_000
HOSTS = 10
"""More than runs are let through at a time, so that one run per host is not what the queue waits for."""

PAGE_ROUNDS = 5
DRAINED = 300
DRAIN_SECONDS = 1500.0
"""Until the figures are taken from what has ended by then: a busy machine is no reason to wait for an hour."""

PLAN_SECONDS = 300.0
POLL_SECONDS = 2.0


def figures() -> Iterator[Figure]:
    """Code location, then the registering alone, then a day with Dagster."""
    yield from dagster_load.figures()
    yield from _registering()
    with temporary_home() as home, tiny_network(home.network, hosts=HOSTS, repos=PARTITIONS) as said:
        config = load_config(_add_config(home, said))
        shard_assets = [*map(names.records_asset, config.record_types), names.REPO_OUTCOMES]
        with home.live() as dagster:
            yield from _live(dagster, [[NAME, asset] for asset in shard_assets])


def _registering() -> Iterator[Figure]:
    keys = [f"host{number % HOSTS}.example~{number // HOSTS:04d}" for number in range(PARTITIONS)]
    with temporary_home() as home, dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        first = seconds_of(partial(register_partitions, instance, NAME, keys))
        yield Figure("partitions registered with a fresh instance (SQLite)", PARTITIONS, "partitions", first)
        again = seconds_of(partial(register_partitions, instance, NAME, keys))
        yield Figure("the same ones registered again", PARTITIONS, "partitions", again)


def _add_config(home: Home, said: Mapping[str, Any]) -> Path:
    return home.add_config(
        NAME,
        {
            "source": {"type": "sqlite", "path": said["dids_sqlite"]},
            "identity": {"plc_url": said["plc_url"], "requests_per_second": 1000},
            "processing": {"allow_private_hosts": True, "requests_per_second": 1000, "shard_size": 1},
        },
    )


def _live(dagster: LocalDagster, assets: list[list[str]]) -> Iterator[Figure]:
    web = dagster.webserver
    yield from _plan(web)
    yield from _page(web, assets, "no run yet")
    launched_at = time.time()
    started = time.perf_counter()
    backfill_id = web.launch_partitions(JOB, web.partition_keys(JOB))
    yield Figure(
        "a partition backfill of all of them accepted", PARTITIONS, "partitions", time.perf_counter() - started
    )
    deadline = time.monotonic() + DRAIN_SECONDS
    _drain(dagster, backfill_id, DRAINED // 3, deadline)
    yield from _page(web, assets, _how_far(web, backfill_id))
    _drain(dagster, backfill_id, DRAINED, deadline)
    yield from _page(web, assets, _how_far(web, backfill_id))
    yield from _runs(run_times(web, backfill_id, limit=RUNS_MAX)[:DRAINED], launched_at)


def _how_far(web: Webserver, backfill_id: str) -> str:
    """Where a partition backfill is: the pages take the longer the more runs stand in the queue."""
    return f"{count_runs(web, backfill_id):,} runs ended, {count_runs(web, backfill_id, ['QUEUED']):,} queued"


def _plan(web: Webserver) -> Iterator[Figure]:
    started = time.perf_counter()
    run = web.wait_for_run(web.launch_job(names.plan_job(NAME)), timeout_seconds=PLAN_SECONDS)
    seconds = time.perf_counter() - started
    if run.status != "SUCCESS" or run.started_at is None or run.ended_at is None:
        raise SystemExit(f"the plan ended {run.status}")
    what = f"{names.plan_job(NAME)}, from its launch to its end"
    yield Figure(what, PARTITIONS, "DIDs", seconds)
    yield Figure("the same without queue and process", PARTITIONS, "DIDs", run.ended_at - run.started_at)


def _page(web: Webserver, assets: list[list[str]], when: str) -> Iterator[Figure]:
    asks = [ask_page(web, JOB, assets) for _ in range(PAGE_ROUNDS)]
    assert {count for _, count in asks} == {PARTITIONS}
    what = f"Partitions page, {len(assets)} assets, {when}"
    yield figure_of(what, (seconds for seconds, _ in asks), "< 2 s")
    statuses = [seconds_of(partial(web.partition_statuses, JOB)) for _ in range(PAGE_ROUNDS)]
    yield figure_of(f"partitions with their statuses in one question, {when}", statuses, "< 2 s")


def _drain(dagster: LocalDagster, backfill_id: str, count: int, deadline: float) -> None:
    """Wait until so many runs have ended, or until the deadline: what has ended is a figure too."""
    while count_runs(dagster.webserver, backfill_id) < count and time.monotonic() < deadline:
        dagster.check()
        time.sleep(POLL_SECONDS)


def _runs(runs: list[RunTimes], launched_at: float) -> Iterator[Figure]:
    if not runs:
        raise SystemExit("no run of the partition backfill has succeeded")
    first, last = min(run.launched for run in runs), max(run.ended for run in runs)
    a_minute = f"{len(runs) / (last - launched_at) * 60:.0f} a minute"
    yield Figure(f"its first runs drained, from its launch: {a_minute}", len(runs), "runs", last - launched_at)
    at_work = f"{len(runs) / (last - first) * 60:.0f} a minute, {mean_at_work(runs):.1f} at a time"
    yield Figure(f"the same from its first run on: {at_work}", len(runs), "runs", last - first)
    yield figure_of("overhead of a run: start to first op, last op to end", (run.overhead for run in runs), "< 3 s")
    yield figure_of("of that, start to first op", (run.first_op - run.started for run in runs))
    yield figure_of("of that, last op to end", (run.ended - run.last_op for run in runs))
    yield figure_of("a run's launch to its start (process, code location)", (r.started - r.launched for r in runs))
    yield figure_of("a run's launch to end, all of it", (run.ended - run.launched for run in runs))


def main() -> None:
    """Run these benchmarks alone and print their table."""
    print_table(figures())


if __name__ == "__main__":
    main()
