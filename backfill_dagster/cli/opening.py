"""What most commands begin with: the config of an argument, its options in common, its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.logs import configure_logging
from backfill_dagster.state import BackfillState, open_state

config_argument = click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on stdout.")
limit_option = click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="A trial on the first N DIDs: state and ledger in <state.path>__trial, no partitions.",
)


def open_config(path: Path, *, limit: int | None = None) -> BackfillConfig:
    """Load a config (its trial variant with a limit) and set the log level that it names.

    INFO, the default, is for machines: on a terminal the bars and tables say the same, so it counts as WARNING.
    """
    config = load_config(path)
    configure_logging("WARNING" if config.monitoring.log_level == "INFO" else config.monitoring.log_level)
    return config.with_trial(limit) if limit is not None else config


@contextmanager
def opened(path: Path, *, limit: int | None = None, create: bool = True) -> Iterator[BackfillState]:
    """The state of a config to work on; `create=False`: only one that a plan has begun."""
    with open_state(open_config(path, limit=limit), create=create) as state:
        yield state


@contextmanager
def looked_at(path: Path) -> Iterator[BackfillState]:
    """The state of a config, only to be read: nothing is created, and a read-only disk is fine."""
    with open_state(open_config(path), read_only=True) as state:
        yield state
