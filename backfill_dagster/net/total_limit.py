"""One pace over everything a machine sends, whichever process sends it (`processing.total_requests_per_second`).

It only spaces requests; feedback of a host is `rate_limit`'s.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
from pathlib import Path

from backfill_dagster.effects import Effects
from backfill_dagster.errors import StateError

STALE_AFTER_SECONDS = 60.0
STALE_AFTER_REQUESTS = 1000
_TIME = struct.Struct("<d")


class TotalLimiter:
    """Spaces requests evenly: one every 1 / rate seconds.

    With a `shared_file` all processes of the machine that use the same file share one pace: it holds the time of the
    next free turn on the machine's monotonic clock, taken under a file lock.
    """

    def __init__(self, requests_per_second: float | None, effects: Effects, shared_file: Path | None = None) -> None:
        self._interval_seconds = 1 / requests_per_second if requests_per_second else 0.0
        self._effects = effects
        self._shared_file = shared_file
        self._next_at = -math.inf

    async def wait(self) -> None:
        """Wait for this request's turn; at once without a rate. StateError when the shared file can't be used."""
        if not self._interval_seconds:
            return
        now = self._effects.monotonic()
        turn = self._take_shared(now) if self._shared_file else self._take(now)
        if turn > now:
            await self._effects.sleep(turn - now)

    def _take(self, now: float) -> float:
        turn = self._after(self._next_at, now)
        self._next_at = turn + self._interval_seconds
        return turn

    def _take_shared(self, now: float) -> float:
        assert self._shared_file is not None
        try:
            self._shared_file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._shared_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                known = os.pread(descriptor, _TIME.size, 0)
                turn = self._after(_TIME.unpack(known)[0] if len(known) == _TIME.size else -math.inf, now)
                os.pwrite(descriptor, _TIME.pack(turn + self._interval_seconds), 0)
                return turn
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StateError(
                f"can't use {self._shared_file} for the machine's request rate ({error.strerror}); "
                "make it writable or set BACKFILL_LOCK_DIR to a folder that is"
            ) from error

    def _after(self, next_at: float, now: float) -> float:
        # The monotonic clock starts anew with the machine: a turn far ahead is a leftover of an earlier boot.
        is_stale = not next_at <= now + max(STALE_AFTER_SECONDS, STALE_AFTER_REQUESTS * self._interval_seconds)
        return now if is_stale else max(now, next_at)
