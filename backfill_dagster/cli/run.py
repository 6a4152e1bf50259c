"""`backfill run`: the single-machine road without Dagster. Plans what is unplanned, runs what is not done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from backfill_dagster.cli.opening import config_argument, json_option, limit_option, opened
from backfill_dagster.cli.partitions import register_partitions
from backfill_dagster.cli.plan import EXIT_LEFT, plan_text, shard_keys
from backfill_dagster.cli.progress import Bars, bars
from backfill_dagster.cli.stopping import run_stoppable
from backfill_dagster.cli.summary import counted, dids_left, outcome_names, print_counts, print_lines, shown_path
from backfill_dagster.model import Outcome
from backfill_dagster.plan.make import PlanResult
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings, total_outcomes, total_rows
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import BackfillRun, run_backfill, shards_with_work
from backfill_dagster.worker.planning import plan_backfill


@dataclass(frozen=True)
class RunReport:
    """The state after a run, and the run's own numbers.

    Attributes:
        planned: what planning did.
        done: results by shard, and shards left out.
        outcomes: outcome -> current DIDs, of the whole backfill.
        rows: record type -> live rows, of the whole backfill.
        left: DIDs that running again would try.
        seconds: wall time of planning and fetching.
        records_path: where the Parquet lies.
    """

    planned: PlanResult
    done: BackfillRun
    outcomes: dict[str, int]
    rows: dict[str, int]
    left: int
    seconds: float
    records_path: str

    def to_json(self) -> dict[str, Any]:
        """The object of `backfill run --json`."""
        numbers = [result.numbers for result in self.done.results.values()]
        return {
            "dids": sum(self.outcomes.values()),
            "outcomes": self.outcomes,
            "records": self.rows,
            "bytes_fetched": sum(one.bytes_fetched for one in numbers),
            "requests": sum(one.requests for one in numbers),
            "rate_limited": sum(one.rate_limited for one in numbers),
            "records_fetched": sum(one.records_total for one in numbers),
            "seconds": round(self.seconds, 3),
            "left": self.left,
            "shards": len(self.done.results),
            "held": self.done.held,
            "stopped": {key: one.stopped for key, one in self.done.results.items() if one.stopped},
            "records_path": self.records_path,
        }


@click.command()
@config_argument
@click.option("--shard", "shards", multiple=True, metavar="KEY", help="Only this shard (can be repeated).")
@limit_option
@json_option
def run(config_path: Path, shards: tuple[str, ...], limit: int | None, as_json: bool) -> int:
    """Plan what is unplanned, fetch what is not done.

    Ends with how everything stands. Exits 3 while DIDs (with --shard: those of these shards) are left to fetch or to
    retry: run it again.
    """
    with opened(config_path, limit=limit) as state, bars(quiet=as_json) as shown:
        report = run_stoppable(_run, state, shards, limit, shown)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        print_run(report)
    return EXIT_LEFT if report.left or report.done.held else 0


async def _run(state: BackfillState, keys: tuple[str, ...], limit: int | None, shown: Bars) -> RunReport:
    run_id = state.effects.new_id()
    started = state.effects.monotonic()
    planned = await plan_backfill(state, run_id=run_id, limit=limit, on_resolved=shown.resolved)
    if limit is None:
        register_partitions(state.config.name, shard_keys(planned))
    selection = load_selection(state.config)
    shards = shards_with_work(state, planned.plan, selection.scope, keys)
    done = await run_backfill(state, planned.plan, selection, shards, run_id=run_id, on_progress=shown.shard)
    standings = all_standings(state, planned.plan, selection.scope)
    return RunReport(
        planned=planned,
        done=done,
        outcomes=outcome_names(total_outcomes(standings)),
        rows=dict(sorted(total_rows(standings).items())),
        left=dids_left(one for one in standings if not keys or one.shard in keys),
        seconds=state.effects.monotonic() - started,
        records_path=state.store.path("records"),
    )


def print_run(report: RunReport) -> None:
    """The run in words and tables."""
    console = Console()
    print_lines(console, [plan_text(report.planned, with_cost=False)])
    said = report.to_json()
    if not said["dids"]:
        return
    print_counts(console, "Outcomes", report.outcomes, unit="DIDs")
    print_counts(console, "Live rows", report.rows, unit="rows")
    lines = [
        "",
        f"{counted(said['requests'], 'request')}, {said['bytes_fetched'] / 1e6:,.1f} MB, "
        f"{counted(said['records_fetched'], 'record')} in {report.seconds:,.1f} s",
        f"records: {shown_path(report.records_path)}",
    ]
    lines += [f"left out {key}: {why}" for key, why in report.done.held.items()]
    lines += [f"stopped early {key}: {why}" for key, why in said["stopped"].items()]
    moved = report.outcomes.get(Outcome.MOVED, 0)
    if moved:
        lines.append(f"{counted(moved, 'DID')} moved to another host: run the same command again to fetch them there")
    if report.left:
        lines.append(f"{counted(report.left, 'DID')} left to retry: run the same command again")
    print_lines(console, lines)
