"""When a transient fault is tried again: exponential backoff with full jitter, a bounded number of times.

A 429 is no fault: it isn't counted, the limiter makes it wait; only its number is bounded too, so that nothing hangs
for ever on a server that answers nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from backfill_dagster.effects import Effects
from backfill_dagster.errors import RateLimitedError, TransientError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long.

    Attributes:
        max_retries: tries after the first one, for transient faults.
        effects: jitter and sleep.
        base_seconds: upper end of the first delay; doubles up to `max_delay_seconds`.
        max_rate_limits: answers with 429 in one go before giving up with the RateLimitedError.
    """

    max_retries: int
    effects: Effects
    base_seconds: float = 1.0
    max_delay_seconds: float = 60.0
    max_rate_limits: int = 12

    def delay_seconds(self, attempt: int) -> float:
        """Delay before retry number `attempt` (the first is 0): uniform between 0 and the doubled base."""
        return self.effects.random.uniform(0, min(self.max_delay_seconds, self.base_seconds * 2 ** min(attempt, 30)))

    def without_rate_limits(self) -> RetryPolicy:
        """The same, but a 429 ends it at once: for hosts that no limiter paces."""
        return replace(self, max_rate_limits=0)

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds, fails for good, or the tries are used up (then its last TransientError is raised)."""
        faults = rate_limits = 0
        while True:
            try:
                return await operation()
            except RateLimitedError:
                rate_limits += 1
                if rate_limits > self.max_rate_limits:
                    raise
            except TransientError:
                if faults >= self.max_retries:
                    raise
                await self.effects.sleep(self.delay_seconds(faults))
                faults += 1
