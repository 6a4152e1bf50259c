"""Time, randomness and waiting, as values: whoever needs them takes an `Effects`, so that tests never wait.

What reads the network or a disk doesn't belong here.
"""

from __future__ import annotations

import asyncio
import random as random_module
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Effects:
    """The clocks, the dice and the pillow of one process.

    Attributes:
        clock: wall clock, seconds since the epoch.
        monotonic: seconds of a clock that never jumps.
        sleep: waits without blocking the event loop, seconds.
        random: jitter only, never secrets.
        new_id: 32 hex digits, never the same twice.
    """

    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: random_module.Random = field(default_factory=random_module.Random)
    new_id: Callable[[], str] = _new_id

    def now_text(self) -> str:
        """The wall clock as ISO 8601 UTC with milliseconds: `2026-11-23T19:00:00.000Z`."""
        moment = datetime.fromtimestamp(self.clock(), UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
