"""`backfill validate`: every problem of every file, each in one line."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from backfill_dagster.config import BackfillConfig, load_config, unavailable
from backfill_dagster.errors import ConfigError, UsageError
from backfill_dagster.sources import open_source


@click.command()
@click.argument("config_paths", metavar="CONFIG...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--source", "with_source", is_flag=True, help="Also open the source and read its first rows.")
def validate(config_paths: tuple[Path, ...], with_source: bool) -> int:
    """Check the shape of configs; exits 2 when any has a problem."""
    failed = False
    for path in config_paths:
        try:
            config = load_config(path)
            click.echo(f"{path}: valid ({config.name})")
            for note in unavailable(config):
                click.echo(f"{path}: note: {note}")
            if with_source:
                click.echo(f"{path}: {_look_into_source(config)}")
        except (ConfigError, UsageError) as error:
            failed = True
            click.echo(str(error), err=True)
    return 2 if failed else 0


def _look_into_source(config: BackfillConfig) -> str:
    source = open_source(config.source, config.resolve)
    rows = list(islice(source.rows(), 3))
    shown = ", ".join(row.text for row in rows) or "no rows"
    return f"source {source.describe()}: {shown}"
