"""`backfill status`: how a backfill stands, read from plan and log."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from backfill_dagster.cli.opening import config_argument, json_option, opened
from backfill_dagster.cli.plan import EXIT_LEFT
from backfill_dagster.cli.summary import outcome_names, print_counts, print_lines
from backfill_dagster.plan import PlanStore
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings, total_outcomes, total_rows


@click.command()
@config_argument
@json_option
def status(config_path: Path, as_json: bool) -> int:
    """Outcomes, rows and what is left, by shard."""
    with opened(config_path) as state:
        standings = all_standings(state, PlanStore(state.store).read(), load_selection(state.config).scope)
        records_path = state.store.path("records")
    outcomes = total_outcomes(standings)
    left = sum(count for outcome, count in outcomes.items() if not outcome.is_terminal)
    said = {
        "dids": outcomes.total(),
        "outcomes": outcome_names(outcomes),
        "records": dict(sorted(total_rows(standings).items())),
        "left": left,
        "shards": {
            one.shard: {"dids": one.dids, "outcomes": outcome_names(one.outcomes), "pending": one.pending}
            for one in standings
            if one.dids
        },
        "records_path": records_path,
    }
    if as_json:
        click.echo(json.dumps(said, indent=2))
    elif not outcomes:
        click.echo("nothing planned yet: run `backfill plan` first")
    else:
        console = Console()
        print_counts(console, "Outcomes", outcome_names(outcomes), unit="DIDs")
        print_counts(console, "Live rows", total_rows(standings), unit="rows")
        open_shards = [one for one in standings if one.has_work]
        print_counts(console, "Shards with work", {one.shard: one.pending for one in open_shards}, unit="pending")
        print_lines(console, ["", f"records: {records_path}"])
    return EXIT_LEFT if left else 0
