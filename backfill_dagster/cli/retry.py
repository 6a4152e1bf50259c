"""`backfill retry`: reopens DIDs by outcome, host, error and age."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, opened
from backfill_dagster.errors import UsageError
from backfill_dagster.model import Outcome
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.worker.retry import RETRIED_BY_DEFAULT, mark_for_retry

REOPENABLE = [outcome.value for outcome in Outcome if outcome not in (Outcome.PURGED, Outcome.PENDING)]

HOSTS_SHOWN = 10

_AGE = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Age(click.ParamType[timedelta]):
    """A span of time: `30m`, `12h`, `7d`, `2w`."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The span; a usage error when it isn't one."""
        match = _AGE.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no span of time; write 30m, 12h, 7d or 2w", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


@click.command()
@config_argument
@click.option("--outcome", "names", multiple=True, type=click.Choice(REOPENABLE), help="Only this (can be repeated).")
@click.option("--host", "hosts", multiple=True, metavar="H", help="Only this, as in partition keys (can be repeated).")
@click.option("--error", "errors", multiple=True, metavar="CODE", help="Only this error code (can be repeated).")
@click.option("--age", type=Age(), metavar="SPAN", help="Only where the last attempt is so old: 30m, 12h, 7d, 2w.")
def retry(
    config_path: Path, names: tuple[str, ...], hosts: tuple[str, ...], errors: tuple[str, ...], age: timedelta | None
) -> None:
    """Reopen DIDs for the next run, also while one is going on.

    Without --outcome: all that are not there and could be. A DID has to fit all options given. It is fetched whole;
    outcome and evidence stay until then.
    """
    outcomes = {Outcome(name) for name in names} or RETRIED_BY_DEFAULT
    with opened(config_path, create=False) as state:
        plan = PlanStore(state.store).read()
        _check_hosts(plan, hosts)
        marked = mark_for_retry(state, plan, outcomes=outcomes, hosts=set(hosts), errors=set(errors), min_age=age)
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
