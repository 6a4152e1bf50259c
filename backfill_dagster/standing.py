"""How each shard of a backfill stands right now: plan, log and retry marks read together, nothing written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, Wanted
from backfill_dagster.plan import Plan
from backfill_dagster.progress import has_rewrites, live_rows, outcome_counts, pending_dids
from backfill_dagster.state import BackfillState


@dataclass(frozen=True)
class ShardStanding:
    """One shard's account.

    Attributes:
        shard: partition key, or the reserved shard.
        dids: current DIDs.
        outcomes: outcome -> current DIDs.
        rows: record type -> live rows.
        pending: DIDs that a run would fetch.
        has_work: whether a run has something to do: pending DIDs or superseded rows.
    """

    shard: str
    dids: int
    outcomes: Counter[Outcome]
    rows: Counter[str]
    pending: int
    has_work: bool


def shard_standing(state: BackfillState, planned: Sequence[PlannedDid], wanted: Wanted, shard: str) -> ShardStanding:
    """One shard's account: what the plan says of it, against its log."""
    fold = state.log(shard).read()
    pending = 0
    if shard != UNROUTABLE_SHARD:
        pending = len(pending_dids(planned, fold, state.ledger.retry_marks(shard), wanted))
    return ShardStanding(
        shard=shard,
        dids=sum(not one.delisted for one in planned),
        outcomes=outcome_counts(planned, fold, wanted),
        rows=live_rows(fold),
        pending=pending,
        has_work=pending > 0 or has_rewrites(fold),
    )


def all_standings(state: BackfillState, plan: Plan, scope: str) -> list[ShardStanding]:
    """Every shard's account by key, the reserved shard last; one pass over the plan."""
    wanted = Wanted(scope, plan.refresh)
    standings = {key: shard_standing(state, planned, wanted, key) for key, planned in plan.by_shard()}
    for emptied in [key for key in [*plan.shards(), UNROUTABLE_SHARD] if key not in standings]:
        standings[emptied] = shard_standing(state, [], wanted, emptied)
    reserved = standings.pop(UNROUTABLE_SHARD)
    return [*(standings[key] for key in sorted(standings)), reserved]


def total_outcomes(standings: Iterable[ShardStanding]) -> Counter[Outcome]:
    """Outcomes over all shards."""
    total: Counter[Outcome] = Counter()
    for one in standings:
        total.update(one.outcomes)
    return total


def total_rows(standings: Iterable[ShardStanding]) -> Counter[str]:
    """Live rows by record type over all shards."""
    total: Counter[str] = Counter()
    for one in standings:
        total.update(one.rows)
    return total
