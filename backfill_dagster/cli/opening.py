"""What most commands begin with: the config of an argument, its state, and running a coroutine that can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.logs import configure_logging
from backfill_dagster.state import BackfillState, open_state

P = ParamSpec("P")
T = TypeVar("T")

config_argument = click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on stdout.")
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="A trial on the first N DIDs: state and ledger in <state.path>__trial, no partitions.",
)


def open_config(path: Path, *, limit: int | None = None) -> BackfillConfig:
    """Load a config (its trial variant with a limit) and set the log level that it names."""
    config = load_config(path)
    configure_logging("WARNING" if config.monitoring.log_level == "INFO" else config.monitoring.log_level)
    return config.with_trial(limit) if limit is not None else config


@contextmanager
def opened(path: Path, *, limit: int | None = None) -> Iterator[BackfillState]:
    """The state of a config, opened; closed at the end."""
    with open_state(open_config(path, limit=limit)) as state:
        yield state


def run_stoppable(work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a coroutine; SIGINT and SIGTERM cancel it once, so that it can commit what is in hand and let go.

    Raises:
        KeyboardInterrupt: it was stopped by a signal.
    """

    async def supervised() -> T:
        task = asyncio.ensure_future(work(*args, **kwargs))
        stopped = False

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Not possible outside the main thread (tests): then cancelling is the caller's business.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, stop)
        try:
            return await task
        except asyncio.CancelledError:
            if stopped:
                raise KeyboardInterrupt from None
            raise

    return asyncio.run(supervised())
