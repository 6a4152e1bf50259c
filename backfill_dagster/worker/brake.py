"""When a run stops before its last DID: its quota is used up, or its host is dead. Asked before every request."""

from __future__ import annotations

from dataclasses import dataclass

from backfill_dagster.config import Quota
from backfill_dagster.effects import Effects
from backfill_dagster.worker.result import RunNumbers


@dataclass(frozen=True)
class Stop:
    """Why fetching ended early."""

    reason: str
    host_down: bool = False
    retry_after_seconds: float | None = None


class Brake:
    """Pulled once, by whoever has the first reason.

    Attributes:
        pulled: the reason; None while the run goes on.
    """

    def __init__(self, quota: Quota, effects: Effects, numbers: RunNumbers) -> None:
        self.pulled: Stop | None = None
        self._quota = quota
        self._effects = effects
        self._numbers = numbers
        self._allowed = 0
        self._started = effects.monotonic()

    def pull(self, stop: Stop) -> None:
        """Stop the run; a reason that is there already stays."""
        self.pulled = self.pulled or stop

    def may_go_on(self) -> bool:
        """Whether another request may be made. Each True is a permit for one: many ask before the first is made."""
        requests, hours = self._quota.requests, self._quota.hours
        if requests is not None and max(self._allowed, self._numbers.requests) >= requests:
            self.pull(Stop(f"quota of {requests} requests used up"))
        if hours is not None and self._effects.monotonic() - self._started >= hours * 3600:
            self.pull(Stop(f"quota of {hours:g} hours used up"))
        if self.pulled is not None:
            return False
        self._allowed += 1
        return True
