"""What was asked of whom: request counters, and the rate limit windows of each host."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from backfill_dagster.localnet.faults import GET_REPO
from backfill_dagster.localnet.options import RateLimits


class Traffic:
    """Requests by server URL and path (XRPC method); DIDs in paths are written `{did}`."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)

    def note(self, server: str, path: str) -> None:
        """Count one request."""
        self._counts[server][path] += 1

    def counts(self) -> dict[str, dict[str, int]]:
        """Server URL -> path -> requests; servers that nobody asked are not in it."""
        return {server: dict(counter) for server, counter in self._counts.items()}

    def reset(self) -> None:
        """Begin anew."""
        self._counts.clear()


@dataclass(slots=True)
class _Window:
    ends: float = 0.0
    used: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a bucket says about one request: whether it is within the limit, and the headers."""

    allowed: bool
    headers: dict[str, str]


class Buckets:
    """The two fixed windows of one host: getRepo, and everything else.

    Args:
        limits: sizes and whether they are enforced.
        clock: seconds since the epoch.
    """

    def __init__(self, limits: RateLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._windows: dict[bool, _Window] = {True: _Window(), False: _Window()}

    def take(self, path: str) -> Allowance:
        """Count one request against its bucket."""
        is_get_repo = path == GET_REPO
        limits, window, now = self._limits, self._windows[is_get_repo], self._clock()
        if now >= window.ends:
            window.ends, window.used = now + limits.window_seconds, 0
        window.used += 1
        limit = limits.get_repo if is_get_repo else limits.other
        allowed = window.used <= limit or not limits.enforce
        if not limits.headers:
            return Allowance(allowed, {})
        headers = {
            "ratelimit-limit": str(limit),
            "ratelimit-remaining": str(max(0, limit - window.used)),
            "ratelimit-reset": str(int(window.ends)),
            "ratelimit-policy": f"{limit};w={limits.window_seconds}",
        }
        if not allowed:
            headers["retry-after"] = str(max(1, int(window.ends - now)))
        return Allowance(allowed, headers)
