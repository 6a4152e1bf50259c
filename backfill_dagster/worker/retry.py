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

LOOKS_MAX = 100
"""Looks at a log that a run is writing to; each one after the first sees only what was committed since."""


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
        """Whether a DID's outcome fits. What is purged stays so, whatever was asked for."""
        if result.outcome is Outcome.PURGED or result.outcome not in self.outcomes:
            return False
        if self.errors and result.error_code not in self.errors:
            return False
        if self.min_age is None:
            return True
        return result.finished_at is not None and now - datetime.fromisoformat(result.finished_at) >= self.min_age


def mark_for_retry(
    state: BackfillState,
    plan: Plan,
    *,
    outcomes: Collection[Outcome] = RETRIED_BY_DEFAULT,
    hosts: Collection[str] = (),
    errors: Collection[str] = (),
    min_age: timedelta | None = None,
) -> Counter[Outcome]:
    """Mark the plan's current DIDs that fit (`Choice`); good at any time, also while runs are going on.

    Returns:
        outcome -> DIDs marked. Outcomes and evidence in log and ledger stay as they are until the DID is tried anew.
    """
    choice = Choice(outcomes, hosts, errors, min_age)
    now = datetime.fromtimestamp(state.effects.clock(), UTC)
    marked: Counter[Outcome] = Counter()
    for key in [*plan.shards(), UNROUTABLE_SHARD]:
        if choice.has_shard(key):
            current = {one.did for one in plan.dids(key) if not one.delisted}
            marked.update(_mark_shard(state, key, current, choice, now).values())
    return marked


def _mark_shard(
    state: BackfillState, key: str, current: Collection[str], choice: Choice, now: datetime
) -> dict[str, Outcome]:
    """Mark what fits in one shard; returns DID -> the outcome it was marked for first."""
    log = state.log(key)
    fold, since = log.read(), 0
    marked: dict[str, Outcome] = {}
    for _ in range(LOOKS_MAX):
        chosen = {
            did: (result, seq)
            for did, (result, seq) in fold.dids.items()
            if seq > since and did in current and choice.has(result, now)
        }
        state.ledger.mark_for_retry(key, {did: seq for did, (_, seq) in chosen.items()})
        marked = {did: result.outcome for did, (result, _) in chosen.items()} | marked
        # A run may have committed between the look and the mark, which would answer to an outcome of before.
        since, fold = fold.seq, log.refresh(fold)
        if fold.seq == since:
            break
    return marked
