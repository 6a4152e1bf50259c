"""`backfill retry`: reopens DIDs by outcome and host."""

from __future__ import annotations

from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, opened
from backfill_dagster.model import Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.worker.retry import RETRIED_BY_DEFAULT, mark_for_retry

REOPENABLE = [outcome.value for outcome in Outcome if outcome not in (Outcome.PURGED, Outcome.PENDING)]


@click.command()
@config_argument
@click.option("--outcome", "names", multiple=True, type=click.Choice(REOPENABLE), help="Only this outcome.")
@click.option("--host", "hosts", multiple=True, metavar="H", help="Only this host, as in its partition keys.")
def retry(config_path: Path, names: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    """Reopen DIDs for the next run; without --outcome all that are not there and could be."""
    outcomes = {Outcome(name) for name in names} or RETRIED_BY_DEFAULT
    with opened(config_path) as state:
        plan = PlanStore(state.store).read()
        marked = mark_for_retry(state, plan, outcomes=outcomes, hosts=set(hosts))
    said = ", ".join(f"{count:,} {outcome.value}" for outcome, count in sorted(marked.items())) or "no DID matches"
    click.echo(f"reopened: {said}" + (f"; `backfill run {config_path}` fetches them" if marked else ""))
