"""Keeps Dagster's dynamic partitions in step with plans made from the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click


def register_partitions(name: str, keys: Sequence[str]) -> None:
    """Register a plan's partitions with the Dagster instance of DAGSTER_HOME; nothing to do without one.

    Dagster is imported only then: it costs more than a small plan does.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home or not keys:
        return
    from backfill_dagster.orchestration import register_with_local_instance

    try:
        register_with_local_instance(name, keys)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with somebody's Dagster, the plan itself stands
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        click.echo(
            f"backfill: the plan stands, but its partitions could not be registered with Dagster in {home} "
            f"({reason}); the job plan_{name} does it, or unset DAGSTER_HOME",
            err=True,
        )
