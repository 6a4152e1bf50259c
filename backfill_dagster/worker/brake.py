"""When a run stops before its last DID: its quota is used up, or its host is dead. Asked before every request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backfill_dagster.config import Quota
from backfill_dagster.effects import Effects
from backfill_dagster.net.evidence import pause_seconds
from backfill_dagster.worker.result import RunNumbers

ASKED_PAUSE_MAX_SECONDS = 86_400.0
"""A host may ask to be let alone for a day at most; what it says beyond that isn't believed."""


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

    def give_up(self, reason: str, headers: Mapping[str, str]) -> None:
        """Stop the run because the host is dead.

        Args:
            reason: in words.
            headers: of its last answer, if there was one: it may say when to come back.
        """
        wait = pause_seconds(headers, self._effects.clock())
        bounded = None if wait is None else min(wait, ASKED_PAUSE_MAX_SECONDS)
        self.pull(Stop(reason, host_down=True, retry_after_seconds=bounded))

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
