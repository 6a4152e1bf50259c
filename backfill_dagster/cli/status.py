"""`backfill status`: how a backfill stands, read from plan and log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from backfill_dagster.cli.opening import config_argument, json_option, looked_at, open_config
from backfill_dagster.cli.plan import EXIT_LEFT
from backfill_dagster.cli.summary import counted, dids_left, outcome_names, print_counts, print_lines, shown_path
from backfill_dagster.config import BackfillConfig
from backfill_dagster.plan import PlanStore
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import ShardStanding, all_standings, total_outcomes, total_rows
from backfill_dagster.state import has_state


@click.command()
@config_argument
@json_option
def status(config_path: Path, as_json: bool) -> int:
    """Say how the backfill stands: outcomes, rows, what is left.

    Exits 3 while DIDs are left to fetch or to retry.
    """
    config = open_config(config_path)
    standings = _standings(config_path) if has_state(config) else []
    left = dids_left(standings)
    if as_json:
        click.echo(json.dumps(_status_json(config, standings, left), indent=2))
    elif not total_outcomes(standings):
        click.echo(f"no DIDs are planned: `backfill plan {config_path}` reads the source")
    else:
        _print_status(config, standings, left)
    return EXIT_LEFT if left or any(one.lost_parts for one in standings) else 0


def _standings(config_path: Path) -> list[ShardStanding]:
    with looked_at(config_path) as state:
        return all_standings(state, PlanStore(state.store).read(), load_selection(state.config).scope)


def _status_json(config: BackfillConfig, standings: Sequence[ShardStanding], left: int) -> dict[str, Any]:
    outcomes = total_outcomes(standings)
    return {
        "dids": outcomes.total(),
        "outcomes": outcome_names(outcomes),
        "records": dict(sorted(total_rows(standings).items())),
        "left": left,
        "lost_parts": sum(one.lost_parts for one in standings),
        "shards": {
            one.shard: {"dids": one.dids, "outcomes": outcome_names(one.outcomes), "pending": one.pending}
            for one in standings
            if one.dids
        },
        "records_path": f"{config.state_path}/records",
    }


def _print_status(config: BackfillConfig, standings: Sequence[ShardStanding], left: int) -> None:
    console = Console()
    print_counts(console, "Outcomes", outcome_names(total_outcomes(standings)), unit="DIDs")
    print_counts(console, "Live rows", total_rows(standings), unit="rows")
    open_shards = {one.shard: one.pending for one in standings if one.has_work}
    print_counts(console, "Shards with work", open_shards, unit="pending")
    lines = ["", f"records: {shown_path(f'{config.state_path}/records')}"]
    lost = sum(one.lost_parts for one in standings)
    if lost:
        lines.append(f"{counted(lost, 'part')} missing or altered: `backfill verify {config.path}` names them")
    if left:
        lines.append(f"{counted(left, 'DID')} left: `backfill run {config.path}` goes on")
    print_lines(console, lines)
