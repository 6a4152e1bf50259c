"""What fetching a plan costs, before anything runs: requests, bytes and hours at the configured rates.

Rough on purpose: one request and one average repo per DID. What a run really did is in its report.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

REPO_BYTES_AVERAGE = 500_000
"""A mean over many accounts; most repos are far smaller, a few are hundreds of times larger."""

_HOURS_SHOWN_AS_DAYS = 72


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is to be expected.

    Attributes:
        dids: DIDs that have a host.
        hosts: hosts that have a DID.
        requests: getRepo calls.
        bytes: of all CARs together.
        hours: wall time at the configured rates, if the hosts answer in time.
    """

    dids: int
    hosts: int
    requests: int
    bytes: int
    hours: float

    def to_json(self) -> dict[str, int | float]:
        """JSON form, hours to three places."""
        return dataclasses.asdict(self) | {"hours": round(self.hours, 3)}

    def text(self) -> str:
        """One line: `12,345 DIDs on 17 hosts: about 12,400 requests, 3.2 hours, 6.2 GB`."""
        if not self.dids:
            return "0 DIDs: nothing to fetch"
        dids, hosts = _counted(self.dids, "DID"), _counted(self.hosts, "host")
        requests = _counted(_rounded_up(self.requests), "request")
        return f"{dids} on {hosts}: about {requests}, {_hours_text(self.hours)}, {_bytes_text(self.bytes)}"


def estimate(
    dids_by_host: Mapping[str, int],
    *,
    requests_per_second: float,
    max_concurrent_pds: int,
    total_requests_per_second: float | None = None,
) -> Estimate:
    """Work out the costs of one getRepo per DID.

    One host is one run at a time at `requests_per_second`, at most `max_concurrent_pds` hosts side by side: so it takes
    as long as the largest host, or as all DIDs spread evenly, or as all DIDs at `total_requests_per_second`, whichever
    is longest (a lower bound that longest-first scheduling comes close to).

    Args:
        dids_by_host: current DIDs by host, the unroutable ones left out.
        requests_per_second: per host.
        max_concurrent_pds: hosts at the same time.
        total_requests_per_second: over all hosts; None for no such limit.
    """
    counts = [count for count in dids_by_host.values() if count > 0]
    dids = sum(counts)
    seconds = max(max(counts, default=0), dids / max_concurrent_pds) / requests_per_second
    if total_requests_per_second is not None:
        seconds = max(seconds, dids / total_requests_per_second)
    return Estimate(dids=dids, hosts=len(counts), requests=dids, bytes=dids * REPO_BYTES_AVERAGE, hours=seconds / 3600)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _rounded_up(count: int) -> int:
    """Three significant digits, upwards."""
    step = int(10 ** max(0, len(str(count)) - 3))
    return -(-count // step) * step


def _hours_text(hours: float) -> str:
    if hours * 60 < 1:
        return "less than a minute"
    if hours < 1:
        return _counted(math.ceil(hours * 60), "minute")
    if hours < _HOURS_SHOWN_AS_DAYS:
        return f"{hours:.1f} hours"
    return f"{hours / 24:.1f} days"


def _bytes_text(size: int) -> str:
    for unit, scale in (("TB", 10**12), ("GB", 10**9)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 10**6:.1f} MB"
