"""`backfill retry`: reopens DIDs by outcome and host."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, opened
from backfill_dagster.errors import UsageError
from backfill_dagster.model import Outcome
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.worker.retry import RETRIED_BY_DEFAULT, mark_for_retry

REOPENABLE = [outcome.value for outcome in Outcome if outcome not in (Outcome.PURGED, Outcome.PENDING)]

HOSTS_SHOWN = 10


@click.command()
@config_argument
@click.option("--outcome", "names", multiple=True, type=click.Choice(REOPENABLE), help="Only this (can be repeated).")
@click.option("--host", "hosts", multiple=True, metavar="H", help="Only this, as in partition keys (can be repeated).")
def retry(config_path: Path, names: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    """Reopen DIDs for the next run.

    Without --outcome: all that are not there and could be. Outcomes and evidence stay until the DID is tried anew.
    """
    outcomes = {Outcome(name) for name in names} or RETRIED_BY_DEFAULT
    with opened(config_path, create=False) as state:
        plan = PlanStore(state.store).read()
        _check_hosts(plan, hosts)
        marked = mark_for_retry(state, plan, outcomes=outcomes, hosts=set(hosts))
    if not marked:
        click.echo(f"no DID matches; `backfill status {config_path}` shows the outcomes there are")
        return
    said = ", ".join(f"{count:,} {outcome.value}" for outcome, count in sorted(marked.items()))
    click.echo(f"reopened: {said}; `backfill run {config_path}` tries them again")


def _check_hosts(plan: Plan, hosts: Collection[str]) -> None:
    known = sorted(plan.hosts())
    for host in hosts:
        if host not in known:
            more = f" and {len(known) - HOSTS_SHOWN} more" if len(known) > HOSTS_SHOWN else ""
            raise UsageError(f"unknown host {host!r}; the plan has {', '.join(known[:HOSTS_SHOWN]) or 'none'}{more}")
