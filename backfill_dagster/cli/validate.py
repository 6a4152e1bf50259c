"""`backfill validate`: every problem of every file, each in one line."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from backfill_dagster.config import BackfillConfig, LoadedConfig, load_configs, unavailable
from backfill_dagster.errors import UsageError
from backfill_dagster.sources import open_source

ROWS_SHOWN = 3


@click.command()
@click.argument("config_paths", metavar="CONFIG...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--source", "with_source", is_flag=True, help="Also open the source and read its first rows.")
def validate(config_paths: tuple[Path, ...], with_source: bool) -> int:
    """Check configs, each with all its problems at once.

    No two may share a name or a state path. Exits 2 when any has a problem.
    """
    bad = [one for one in load_configs(dict.fromkeys(config_paths)) if not _is_valid(one, with_source)]
    return 2 if bad else 0


def _is_valid(loaded: LoadedConfig, with_source: bool) -> bool:
    path, config = loaded.path, loaded.config
    if config is None:
        click.echo(str(loaded.error), err=True)
        return False
    click.echo(f"{path}: valid ({config.name})")
    missing = unavailable(config)
    for note in missing:
        click.echo(f"{path}: note: {note}")
    if not with_source or missing:
        return True
    try:
        click.echo(f"{path}: {_look_into_source(config)}")
    except UsageError as error:
        click.echo(f"{path}: {error}", err=True)
        return False
    return True


def _look_into_source(config: BackfillConfig) -> str:
    source = open_source(config.source, config.resolve)
    rows = list(islice(source.rows(), ROWS_SHOWN))
    shown = ", ".join(row.text for row in rows) or "no rows"
    return f"source {source.describe()}: {shown}{', …' if len(rows) == ROWS_SHOWN else ''}"
