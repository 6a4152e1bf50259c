"""`backfill verify`: parts, log and ledger agree, or every place where they don't."""

from __future__ import annotations

from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, opened
from backfill_dagster.report import verify_backfill


@click.command()
@config_argument
def verify(config_path: Path) -> int:
    """Check every part, the log, the ledger and the plan against each other; exits 1 on any difference."""
    with opened(config_path) as state:
        problems = verify_backfill(state)
    for problem in problems:
        click.echo(problem, err=True)
    click.echo("clean" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0
