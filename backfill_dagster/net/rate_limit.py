"""How fast one host is asked: pacing, pauses when it says 429, careful return to speed.

Which answer is a rate limit is in `answers`; what becomes of the request (back in line, uncounted) is up to the caller.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from backfill_dagster.effects import Effects
from backfill_dagster.net.evidence import is_used_up, reset_seconds

FIRST_PAUSE_SECONDS = 15.0
MAX_PAUSE_SECONDS = 300.0
MAX_ASKED_PAUSE_SECONDS = 3600.0
SLOWEST_PER_SECOND = 1 / 30
SUCCESSES_PER_STEP = 50
STEP = 1.05
SPACING = 1.01
"""A host that takes 3,000 in 5 minutes counts arrivals, which jitter: exactly 10 a second is 3,001 now and then."""

_JITTER = 0.1


class Slot:
    """One request's place in its host's line. Tell it how the host answered: the first word counts.

    Nothing told is no verdict (a fault); then the next request probes, if one is due.
    """

    def __init__(self, limiter: HostLimiter, episode: int, *, is_probe: bool) -> None:
        self._limiter = limiter
        self._is_probe = is_probe
        self._is_told = False
        self.episode = episode

    def succeeded(self, headers: Mapping[str, str] | None = None) -> None:
        """The host served it (an error answer about the account counts too); headers in lower case, if at hand."""
        if not self._is_told:
            self._is_told = True
            self._limiter._on_success(self, headers or {})
        self.close()

    def rate_limited(self, retry_after_seconds: float | None) -> None:
        """The host asked for a pause, of this length if it said so."""
        if not self._is_told:
            self._is_told = True
            self._limiter._on_rate_limit(self, retry_after_seconds)
        self.close()

    def close(self) -> None:
        """Give the probe's place back; done for you by `HostLimiter.slot`."""
        if self._is_probe:
            self._is_probe = False
            self._limiter._probe_over.set()


class HostLimiter:
    """Paces the requests to one host, first come, first served, evenly and without bursts.

    On a 429 the whole host pauses: as long as it asked for (bounded), else 15 s doubling to 300 s with jitter, and then
    the rate is halved, once per episode: answers to requests from before the pause say nothing new. After the pause one
    request probes; when it is served the others follow, and every 50 successes add 5 % until the configured rate.
    A success that used up the host's announced budget waits for the window's end.
    """

    def __init__(self, requests_per_second: float, effects: Effects) -> None:
        self._effects = effects
        self._top_rate = requests_per_second
        self._rate = requests_per_second
        self._line = asyncio.Lock()
        self._not_before = -math.inf
        self._paused_until = -math.inf
        self._episode = 0
        self._is_in_episode = False
        self._pauses_in_episode = 0
        self._successes = 0
        self._probe_over = asyncio.Event()
        self._probe_over.set()

    @property
    def rate_per_second(self) -> float:
        """The rate of now: the configured one, or less after a 429."""
        return self._rate

    @property
    def pause_seconds(self) -> float:
        """How long the host still pauses because of a rate limit; 0 when it doesn't."""
        return max(0.0, self._paused_until - self._effects.monotonic())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait for this request's turn."""
        slot = await self._next_slot()
        try:
            yield slot
        finally:
            slot.close()

    async def _next_slot(self) -> Slot:
        async with self._line:
            while True:
                wait = self._not_before - self._effects.monotonic()
                if wait > 0:
                    await self._effects.sleep(wait)
                elif not self._probe_over.is_set():
                    await self._probe_over.wait()
                else:
                    break
            self._not_before = self._effects.monotonic() + SPACING / self._rate
            if self._is_in_episode:
                self._probe_over.clear()
            return Slot(self, self._episode, is_probe=self._is_in_episode)

    def _on_success(self, slot: Slot, headers: Mapping[str, str]) -> None:
        if slot.episode == self._episode:
            self._is_in_episode = False
            self._pauses_in_episode = 0
            self._successes += 1
        if self._successes >= SUCCESSES_PER_STEP:
            self._successes = 0
            self._rate = min(self._top_rate, self._rate * STEP)
        if is_used_up(headers) and (wait := reset_seconds(headers, self._effects.clock())):
            self._pause(min(wait, MAX_PAUSE_SECONDS))

    def _on_rate_limit(self, slot: Slot, asked_seconds: float | None) -> None:
        if slot.episode != self._episode:
            return
        self._episode += 1
        self._successes = 0
        if asked_seconds is not None:
            self._pause(max(1.0, min(asked_seconds, MAX_ASKED_PAUSE_SECONDS)))
        else:
            if self._pauses_in_episode == 0:
                self._rate = max(min(SLOWEST_PER_SECOND, self._top_rate), self._rate / 2)
            # The exponent stays small: 300 s are reached after five.
            self._pause(min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._pauses_in_episode, 10)))
            self._pauses_in_episode += 1
        self._is_in_episode = True

    def _pause(self, seconds: float) -> None:
        jittered = seconds * (1 + _JITTER * self._effects.random.random())
        self._paused_until = max(self._paused_until, self._effects.monotonic() + jittered)
        self._not_before = max(self._not_before, self._paused_until)
