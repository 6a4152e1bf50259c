"""The reserved shard `_unroutable`: DIDs without a host get their log entry and ledger item from the planner itself.

The plan's generation is committed first; this is the second step, done again by every plan until both agree.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from backfill_dagster import __version__
from backfill_dagster.ledger import Lease, ShardSummary, items_behind
from backfill_dagster.model import UNROUTABLE_SHARD, LedgerItem, Outcome, PlannedDid, RepoOutcome, Wanted
from backfill_dagster.records.fold import Fold
from backfill_dagster.state import BackfillState

DIDS_PER_ENTRY = 300
"""At most some 2.5 KiB each (a long source text, a cut error text): well under the log's 1 MiB an entry."""


def log_unroutable(
    state: BackfillState, planned: Iterable[PlannedDid], *, wanted: Wanted, run_id: str
) -> Counter[Outcome]:
    """Append what the log of the reserved shard doesn't say yet; returns the outcomes of its current DIDs.

    Blocks while it waits for the shard's lease: for a thread, not a loop.

    Raises:
        LeaseHeldError: another planner is at it.
        FencedError: another planner took over.
    """
    current = [one for one in planned if not one.delisted]
    log = state.log(UNROUTABLE_SHARD)
    fold = state.whole_fold(UNROUTABLE_SHARD)
    purged = {did for did, (result, _) in fold.dids.items() if result.outcome is Outcome.PURGED}
    outcomes = Counter(Outcome.PURGED if one.did in purged else one.outcome or Outcome.PENDING for one in current)
    if not _news(state, current, fold, wanted) and not _unindexed(state, fold):
        return outcomes
    lease = Lease.acquire(
        state.ledger.leases,
        f"{state.config.name}/{UNROUTABLE_SHARD}",
        owner=f"plan {run_id} of {state.config.name}, pid {os.getpid()} on {socket.gethostname()}",
        run_id=run_id,
        lease_seconds=state.config.processing.lease_seconds,
        at_least_epoch=fold.epoch + 1,
    )
    with lease:
        fold = log.seal(log.read(), epoch=lease.epoch, run_id=run_id)
        waiting = iter(_news(state, current, fold, wanted))
        while chunk := list(islice(waiting, DIDS_PER_ENTRY)):
            lease.check()
            dids = {one.did: _result(state, one, wanted, run_id) for one in chunk}
            fold = log.append(
                fold, epoch=lease.epoch, run_id=run_id, scope=wanted.scope, refresh=wanted.refresh, dids=dids
            )
        state.ledger.put(_unindexed(state, fold))
        state.ledger.clear_marks(UNROUTABLE_SHARD, list(state.ledger.retry_marks(UNROUTABLE_SHARD)))
        named = {outcome.value: count for outcome, count in outcomes.items()}
        state.ledger.put_summary(UNROUTABLE_SHARD, ShardSummary(outcomes=named, rows={}, seq=fold.seq))
    return outcomes


def _news(state: BackfillState, current: Iterable[PlannedDid], fold: Fold, wanted: Wanted) -> list[PlannedDid]:
    """DIDs that the log has nothing, or something else, to say about; and those reopened by `backfill retry`."""
    marks = state.ledger.retry_marks(UNROUTABLE_SHARD)
    news = []
    for one in current:
        known = fold.dids.get(one.did)
        if known is not None:
            result, seq = known
            if result.outcome is Outcome.PURGED:
                continue
            is_same = (result.outcome, result.error_code or "", result.scope) == (
                one.outcome,
                one.error_code,
                wanted.scope,
            )
            if is_same and result.refresh >= wanted.refresh and marks.get(one.did) != seq:
                continue
        news.append(one)
    return news


def _unindexed(state: BackfillState, fold: Fold) -> list[LedgerItem]:
    return items_behind(state.ledger, fold.dids, backfill=state.config.name, shard=UNROUTABLE_SHARD)


def _result(state: BackfillState, one: PlannedDid, wanted: Wanted, run_id: str) -> RepoOutcome:
    return RepoOutcome(
        did=one.did,
        outcome=one.outcome or Outcome.PENDING,
        scope=wanted.scope,
        refresh=wanted.refresh,
        error_code=one.error_code or None,
        error_detail=one.error_detail or None,
        finished_at=state.effects.now_text(),
        run_id=run_id,
        config_hash=state.config.config_hash,
        code_version=__version__,
    )
