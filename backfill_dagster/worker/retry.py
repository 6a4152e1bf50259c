"""Reopening DIDs: retry marks beside the ledger, answered by the next run (or, without a host, by the next plan)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, Shard
from backfill_dagster.plan import Plan
from backfill_dagster.state import BackfillState

RETRIED_BY_DEFAULT = frozenset(Outcome) - {Outcome.COMPLETE, Outcome.UNCHANGED, Outcome.PURGED, Outcome.MOVED}
"""What `backfill retry` without --outcome reopens: whatever isn't there and could be."""


def mark_for_retry(
    state: BackfillState, plan: Plan, *, outcomes: Collection[Outcome], hosts: Collection[str]
) -> Counter[Outcome]:
    """Mark the plan's current DIDs with one of the outcomes, on one of the hosts (all when empty).

    Returns:
        outcome -> DIDs marked. Outcomes and evidence in log and ledger stay as they are until the DID is tried anew.
    """
    marked: Counter[Outcome] = Counter()
    for key in [*plan.shards(), UNROUTABLE_SHARD]:
        if hosts and (key == UNROUTABLE_SHARD or Shard.parse(key).host not in hosts):
            continue
        fold = state.log(key).read()
        chosen = {
            one.did: fold.dids[one.did]
            for one in plan.dids(key)
            if not one.delisted and one.did in fold.dids and fold.dids[one.did][0].outcome in outcomes
        }
        state.ledger.mark_for_retry(key, {did: seq for did, (_, seq) in chosen.items()})
        marked.update(result.outcome for result, _ in chosen.values())
    return marked
