"""Progress bars on stderr: one for resolving, one for each running shard. Silent where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from backfill_dagster.worker.result import RunNumbers

BARS_MAX = 12
"""More than that, and finished ones make room: a plan can have thousands of shards, a terminal has not."""


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
        self._make_room()

    def _make_room(self) -> None:
        shown = [task for task in self._progress.tasks if task.visible]
        finished = [task for task in shown if task.finished]
        for task in finished[: max(0, len(shown) - BARS_MAX)]:
            self._progress.update(task.id, visible=False)


@contextmanager
def bars(quiet: bool = False) -> Iterator[Bars]:
    """Bars for the block; drawn only on a terminal."""
    is_drawn = not quiet and sys.stderr.isatty()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not is_drawn) as progress:
        yield Bars(progress)
