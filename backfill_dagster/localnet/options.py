"""What a local network is made from: its options, checked when they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet.faults import Fault

DEFAULT_SHARES: Mapping[str, float] = {
    "deactivated": 0.03,
    "suspended": 0.015,
    "takendown": 0.015,
    "deleted": 0.02,
    "moved": 0.02,
    "web": 0.02,
    "tombstoned": 0.01,
    "unknown": 0.01,
    "no_pds": 0.01,
    "other_method": 0.01,
    "not_a_did": 0.01,
}
"""Share of the accounts that are not plainly active did:plc ones; `other_method` and `not_a_did` rows come on top."""

_MAX_HOSTS = 100
_MAX_REPOS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """The `ratelimit-*` buckets of each PDS host.

    Attributes:
        get_repo: getRepo requests a window (the reference PDS has 6000).
        other: all other requests a window, together (3000).
        window_seconds: length of a window.
        enforce: whether requests beyond the limit get a 429; the headers are sent in any case.
        headers: False: no header at all, and a generic HTML 429 as Bluesky's own hosts send.
    """

    get_repo: int = 6000
    other: int = 3000
    window_seconds: int = 300
    enforce: bool = False
    headers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalnetOptions:
    """All there is to choose about a network.

    Attributes:
        hosts: PDS hosts, 1-100.
        repos: accounts in the source, of all states; the `--car` files come on top.
        seed: same seed, same options: same DIDs, keys, records and CIDs (did:web ones carry a free port and differ).
        cars: CAR files, each served verbatim under the DID in its commit.
        faults: injected from the start.
        median_records: of the log-normal repo sizes.
        max_records: no repo is larger.
        states: how many accounts of each state instead of `DEFAULT_SHARES`; `{}`: all active.
        rate_limits: of each host.
        gzip: whether hosts compress for clients that accept it.
        cache_mib: memory for packed repos; the least recently used are made again.
        ports: ports to use when they are free (PLC, control, hosts, did:web ones), so that a network can come back
            under its old addresses.
    """

    hosts: int = 3
    repos: int = 200
    seed: int = 1
    cars: tuple[Path, ...] = ()
    faults: tuple[Fault, ...] = ()
    median_records: int = 1400
    max_records: int = 20_000
    states: Mapping[str, int] | None = None
    rate_limits: RateLimits = field(default_factory=RateLimits)
    gzip: bool = True
    cache_mib: int = 256
    ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what can't work.

        Raises:
            UsageError: a number out of bounds, an unknown state, or more states than repos.
        """
        if not 1 <= self.hosts <= _MAX_HOSTS:
            raise UsageError(f"hosts is {self.hosts}: a local network has 1 to {_MAX_HOSTS} PDS hosts")
        if not 0 <= self.repos <= _MAX_REPOS:
            raise UsageError(f"repos is {self.repos}: a local network has 0 to {_MAX_REPOS} repos")
        if self.median_records < 1 or self.max_records < 1:
            raise UsageError("median_records and max_records are at least 1")
        unknown = sorted(set(self.states or {}) - set(DEFAULT_SHARES))
        if unknown:
            raise UsageError(f"unknown account state {unknown[0]!r}: one of {', '.join(DEFAULT_SHARES)}")
        if self.states is not None and (min(self.states.values(), default=0) < 0 or self._states_total() > self.repos):
            raise UsageError(f"states ask for more accounts than the {self.repos} there are")

    def _states_total(self) -> int:
        return sum(n for name, n in (self.states or {}).items() if name not in ("other_method", "not_a_did"))

    def state_counts(self) -> dict[str, int]:
        """How many accounts of each state; the rest is active."""
        if self.states is not None:
            counts = dict(self.states)
        else:
            counts = {name: round(share * self.repos) for name, share in DEFAULT_SHARES.items()}
        if self.hosts == 1:
            counts["moved"] = 0
        return counts
