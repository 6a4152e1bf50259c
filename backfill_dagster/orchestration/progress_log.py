"""Progress of a run in its log: a line every so often, as each costs Dagster a write to its event log."""

from __future__ import annotations

import time
from collections.abc import Callable

from backfill_dagster.worker.result import RunNumbers

EVERY_SECONDS = 10.0


class ProgressLog:
    """Says how far a run has come, at most every `every_seconds`.

    Args:
        say: takes a line, `context.log.info`.
        monotonic: seconds.
        every_seconds: between two lines; the first comes after that time too.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._say = say
        self._monotonic = monotonic
        self._every_seconds = every_seconds
        self._said_at = monotonic()

    def shard(self, run: RunNumbers) -> None:
        """Progress of a shard run."""
        if self._is_time():
            self._say(
                f"{run.dids_done:,} of {run.dids_total:,} DIDs, {run.records_total:,} records, "
                f"{run.bytes_fetched / 1e6:,.1f} MB in {run.requests:,} requests ({run.rate_limited:,} of them 429)"
            )

    def plan(self, done: int, total: int) -> None:
        """Progress of a plan."""
        if self._is_time():
            self._say(f"{done:,} of {total:,} DIDs resolved")

    def _is_time(self) -> bool:
        now = self._monotonic()
        if now - self._said_at < self._every_seconds:
            return False
        self._said_at = now
        return True
