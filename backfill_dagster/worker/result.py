"""What a shard run tells its caller: numbers that Dagster can plot and the terminal can add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backfill_dagster.model import Outcome


@dataclass
class RunNumbers:
    """Counters of one run, growing while it works.

    Attributes:
        dids_total: DIDs that this run set out to fetch.
        dids_done: of these, how many have ended (in any outcome).
        repos_fetched: CARs that came back whole.
        records_total: rows written in this run.
        bytes_fetched: bytes on the wire, bodies of getRepo.
        requests: HTTP requests to the PDS host.
        rate_limited: 429 answers.
        retries: attempts after the first.
        commits: log entries with results.
        seconds: wall time, set at the end.
    """

    dids_total: int = 0
    dids_done: int = 0
    repos_fetched: int = 0
    records_total: int = 0
    bytes_fetched: int = 0
    requests: int = 0
    rate_limited: int = 0
    retries: int = 0
    commits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ShardResult:
    """The state of a shard after a run, and the run's own numbers.

    Attributes:
        shard: partition key.
        host: the shard's host part, `localhost_2583`.
        dids: current DIDs of the shard.
        outcomes: outcome -> DIDs, all current DIDs.
        rows: record type -> live rows in the shard.
        numbers: what this run did.
        stopped: why the run ended early (host down, quota used up); None when it went through.
        retry_after_seconds: when trying again makes sense, if the host said so.
    """

    shard: str
    host: str
    dids: int
    outcomes: Mapping[Outcome, int]
    rows: Mapping[str, int]
    numbers: RunNumbers = field(default_factory=RunNumbers)
    stopped: str | None = None
    host_down: bool = False
    retry_after_seconds: float | None = None

    @property
    def left(self) -> int:
        """DIDs that a later run has to try again."""
        return sum(count for outcome, count in self.outcomes.items() if not outcome.is_terminal)
