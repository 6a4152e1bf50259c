"""`backfill verify`: parts, log and ledger agree, or every place where they don't."""

from __future__ import annotations

from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, looked_at
from backfill_dagster.cli.summary import counted
from backfill_dagster.report import verify_backfill


@click.command()
@config_argument
def verify(config_path: Path) -> int:
    """Check parts, log, ledger and plan against each other.

    Changes nothing; exits 1 on any difference and names each.
    """
    with looked_at(config_path) as state:
        problems = verify_backfill(state)
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(counted(len(problems), "problem") if problems else "clean")
    return 1 if problems else 0
