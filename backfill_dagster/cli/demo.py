"""`backfill demo`: the whole road on this machine, through Dagster's own queue and daemon, on a network of its own.

The demo's folder is `demo_folder`'s business, its network `demo_network`'s, its last words `demo_summary`'s.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from backfill_dagster.cli.demo_aws import demo_aws
from backfill_dagster.cli.demo_folder import claimed_folder, write_demo_config
from backfill_dagster.cli.demo_network import demo_network
from backfill_dagster.cli.demo_summary import print_demo_summary
from backfill_dagster.cli.progress import Bars, bars
from backfill_dagster.cli.stopping import EXIT_INTERRUPTED, stopped_once
from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.errors import BackfillError, UsageError
from backfill_dagster.plan import PlanStore
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings
from backfill_dagster.state import open_state

if TYPE_CHECKING:
    from backfill_dagster.orchestration.live import LocalDagster
    from backfill_dagster.orchestration.webserver import RunInfo

JOB_SECONDS_MAX = 120
SHARDS_SECONDS_MAX = 600
LOOK_SECONDS = 2.0


@click.command()
@click.option("--hosts", type=click.IntRange(1, 20), default=3, show_default=True, help="PDS hosts.")
@click.option("--repos", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Accounts.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same network.")
@click.option("--folder", metavar="DIR", default=".demo", show_default=True, help="Everything goes there.")
@click.option("--ui", is_flag=True, help="Only start network and Dagster, with its UI, until Ctrl-C.")
@click.option("--ui-port", type=click.IntRange(0, 65535), default=3000, show_default=True, help="Its port; 0: any.")
@click.option("--aws", is_flag=True, help="List and state on S3, ledger in DynamoDB: servers on loopback.")
def demo(hosts: int, repos: int, seed: int, folder: str, ui: bool, ui_port: int, aws: bool) -> int:
    """Back fill a small network on loopback, through Dagster.

    Plan, all shards, report and a summary; no AWS account, no internet.
    """
    try:
        return _demo(Path(folder), hosts=hosts, repos=repos, seed=seed, ui_port=ui_port if ui else None, aws=aws)
    except KeyboardInterrupt:
        click.echo("backfill: the demo was stopped; it starts anew next time", err=True)
        return EXIT_INTERRUPTED


def _demo(folder: Path, *, hosts: int, repos: int, seed: int, ui_port: int | None, aws: bool) -> int:
    # Imported here: no other command needs Dagster, and it takes longer to import than they take to run.
    from backfill_dagster.orchestration.live import LocalDagster

    started = time.monotonic()
    port = 0 if ui_port is None else _free_port(ui_port)
    with stopped_once(), claimed_folder(folder) as claimed:
        Console(stderr=True).print(f"starting {hosts} PDS hosts with {repos} repos, and Dagster …")
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(demo_network(claimed / "network", hosts=hosts, repos=repos, seed=seed))
            places = stack.enter_context(demo_aws(claimed, network)) if aws else {}
            path = write_demo_config(claimed, network, shard_size=max(10, repos // (hosts * 2)), places=places)
            with LocalDagster(claimed / "dagster", config_dir=path.parent, ui_port=port) as dagster:
                if ui_port is not None:
                    _serve(dagster)
                    return 0
                failed = _run(dagster, load_config(path))
            print_demo_summary(load_config(path), seconds=time.monotonic() - started, failed=failed)
    return 1 if failed else 0


def _free_port(wanted: int) -> int:
    """The UI's port, looked at before anything is started."""
    from backfill_dagster.orchestration.live import free_port

    try:
        return free_port(wanted)
    except UsageError:
        raise UsageError(
            f"port {wanted} is taken: stop what listens there, or `backfill demo --ui --ui-port 0` takes any"
        ) from None


def _run(dagster: LocalDagster, config: BackfillConfig) -> list[str]:
    """Plan, all shards and report, each as a run that Dagster launches; returns a line for each that failed."""
    webserver = dagster.webserver
    with bars() as shown:
        plan = webserver.wait_for_run(webserver.launch_job("plan_demo"), timeout_seconds=JOB_SECONDS_MAX)
        if plan.status != "SUCCESS":
            raise BackfillError(f"the run of plan_demo ended as {plan.status}; the logs in {dagster.logs} say why")
        shown.move("plan", 1, 1, "plan_demo")
        keys = webserver.partition_keys("backfill_demo")

        def look(runs: list[RunInfo]) -> None:
            dagster.check()
            _show_shards(config, shown)

        backfill = webserver.launch_partitions("backfill_demo", keys)
        webserver.wait_for_backfill(backfill, count=len(keys), timeout_seconds=SHARDS_SECONDS_MAX, on_runs=look)
        _show_shards(config, shown)
        report = webserver.wait_for_run(webserver.launch_job("report_demo"), timeout_seconds=JOB_SECONDS_MAX)
        shown.move("report", int(report.status == "SUCCESS"), 1, "report_demo")
    failed = [run for run in webserver.runs() if run.status != "SUCCESS"]
    return [f"{run.job} {run.partition_key or ''} ended as {run.status}; see {dagster.logs}" for run in failed]


def _show_shards(config: BackfillConfig, shown: Bars) -> None:
    """One bar per shard, read from the logs that the runs write."""
    with open_state(config, read_only=True) as state:
        plan = PlanStore(state.store).read()
        for one in all_standings(state, plan, load_selection(config).scope):
            if one.dids:
                done = one.dids - one.pending
                shown.move(one.shard, done, one.dids, f"{one.rows.total():,} rows")


def _serve(dagster: LocalDagster) -> None:
    """Until a signal comes, or one of Dagster's processes ends."""
    click.echo(
        f"Dagster UI: {dagster.webserver.url} — launch plan_demo first, then partitions of backfill_demo. Ctrl-C stops."
    )
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            dagster.check()
            time.sleep(LOOK_SECONDS)
