"""`backfill init`: a commented starter YAML."""

from __future__ import annotations

import os
from pathlib import Path

import click

from backfill_dagster.cli.writing import writing
from backfill_dagster.config import starter_yaml
from backfill_dagster.errors import UsageError


@click.command()
@click.argument("name", default="my_backfill")
def init(name: str) -> None:
    """Write a commented starter YAML.

    It becomes NAME.yaml in the config folder (BACKFILL_CONFIG_DIR, else configs/), for a backfill called NAME.
    """
    text = starter_yaml(name)
    path = Path(os.environ.get("BACKFILL_CONFIG_DIR") or "configs") / f"{name}.yaml"
    with writing(path, remedy="set BACKFILL_CONFIG_DIR to a folder that can be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise UsageError(f"{path} exists already; choose another name or edit that file") from None
    click.echo(f"{path} written. Next: edit its source and record_types, then `backfill validate {path}`.")
