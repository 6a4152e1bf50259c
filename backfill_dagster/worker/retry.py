"""Reopening DIDs: retry marks beside the ledger, answered by the next run (or, without a host, by the next plan)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, RepoOutcome, Shard
from backfill_dagster.plan import Plan
from backfill_dagster.state import BackfillState

RETRIED_BY_DEFAULT = frozenset(Outcome) - {Outcome.COMPLETE, Outcome.UNCHANGED, Outcome.PURGED, Outcome.MOVED}
"""What `backfill retry` without --outcome reopens: whatever isn't there and could be."""


@dataclass(frozen=True)
class Choice:
    """Which DIDs to reopen: those that fit all of it.

    Attributes:
        outcomes: one of these.
        hosts: on one of these hosts, as partition keys write them; empty: on any, and without one.
        errors: with one of these error codes; empty: whatever the error.
        min_age: whose last attempt ended so long ago; None: whenever.
    """

    outcomes: Collection[Outcome] = RETRIED_BY_DEFAULT
    hosts: Collection[str] = ()
    errors: Collection[str] = ()
    min_age: timedelta | None = None

    def has_shard(self, key: str) -> bool:
        """Whether DIDs of a shard can fit."""
        return not self.hosts or (key != UNROUTABLE_SHARD and Shard.parse(key).host in self.hosts)

    def has(self, result: RepoOutcome, now: datetime) -> bool:
        """Whether a DID's outcome fits."""
        if result.outcome not in self.outcomes or (self.errors and result.error_code not in self.errors):
            return False
        if self.min_age is None:
            return True
        return result.finished_at is not None and datetime.fromisoformat(result.finished_at) <= now - self.min_age


def mark_for_retry(
    state: BackfillState,
    plan: Plan,
    *,
    outcomes: Collection[Outcome] = RETRIED_BY_DEFAULT,
    hosts: Collection[str] = (),
    errors: Collection[str] = (),
    min_age: timedelta | None = None,
) -> Counter[Outcome]:
    """Mark the plan's current DIDs that fit (`Choice`). Good at any time: a run that is at a DID answers no newer mark.

    Returns:
        outcome -> DIDs marked. Outcomes and evidence in log and ledger stay as they are until the DID is tried anew.
    """
    choice = Choice(outcomes, hosts, errors, min_age)
    now = datetime.fromtimestamp(state.effects.clock(), UTC)
    marked: Counter[Outcome] = Counter()
    for key in [*plan.shards(), UNROUTABLE_SHARD]:
        if not choice.has_shard(key):
            continue
        fold = state.log(key).read()
        chosen = {
            one.did: fold.dids[one.did]
            for one in plan.dids(key)
            if not one.delisted and one.did in fold.dids and choice.has(fold.dids[one.did][0], now)
        }
        state.ledger.mark_for_retry(key, {did: seq for did, (_, seq) in chosen.items()})
        marked.update(result.outcome for result, _ in chosen.values())
    return marked
