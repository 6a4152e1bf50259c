"""Progress bars on stderr: one for resolving, one for each running shard. Silent where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from backfill_dagster.worker.result import RunNumbers


class Bars:
    """The bars of one command."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def resolved(self, done: int, total: int) -> None:
        """DIDs resolved while planning."""
        self.move("resolving DIDs", done, total, "")

    def shard(self, key: str, numbers: RunNumbers) -> None:
        """A shard's numbers as they grow."""
        detail = f"{numbers.records_total:,} records, {numbers.bytes_fetched / 1e6:,.1f} MB"
        if numbers.rate_limited:
            detail += f", {numbers.rate_limited} × 429"
        self.move(key, numbers.dids_done, numbers.dids_total, detail)

    def move(self, name: str, done: int, total: int, detail: str) -> None:
        """Set one bar, made at its first call."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, detail=detail)
        self._progress.update(self._tasks[name], completed=done, total=total, detail=detail)


@contextmanager
def bars(quiet: bool = False) -> Iterator[Bars]:
    """Bars for the block; drawn only on a terminal."""
    console = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
