"""The reserved shard `_unroutable`: DIDs without a host get their log entry and ledger item from the planner itself.

The plan's generation is committed first; this is the second step, done again by every plan until both agree.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import islice

from backfill_dagster import __version__
from backfill_dagster.ledger import Lease, ShardSummary, items_behind
from backfill_dagster.model import UNROUTABLE_SHARD, LedgerItem, Outcome, PlannedDid, RepoOutcome, Wanted
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.purges import PurgeLog, Purges
from backfill_dagster.state import BackfillState

DIDS_PER_ENTRY = 300
"""At most some 2.5 KiB each (a long source text, a cut error text): well under the log's 1 MiB an entry."""

PURGED_PER_ENTRY = 100


def log_unroutable(
    state: BackfillState, planned: Iterable[PlannedDid], *, wanted: Wanted, run_id: str
) -> Counter[Outcome]:
    """Append what the log of the reserved shard doesn't say yet; returns the outcomes of its current DIDs.

    Blocks while it waits for the shard's lease: for a thread, not a loop.

    Raises:
        LeaseHeldError: another planner is at it.
        FencedError: another planner took over.
    """
    planned = list(planned)
    members = [one.did for one in planned]
    log = state.log(UNROUTABLE_SHARD)
    fold = state.whole_fold(UNROUTABLE_SHARD)
    purges = Purges.of(PurgeLog(state.store).read())
    gone = purges.dids | {did for did, (result, _) in fold.dids.items() if result.outcome is Outcome.PURGED}
    current = [one for one in planned if not one.delisted and one.did not in gone]
    outcomes = Counter(one.outcome or Outcome.PENDING for one in current)
    if purged := sum(not one.delisted for one in planned) - len(current):
        outcomes[Outcome.PURGED] = purged
    summary = state.ledger.summaries().get(UNROUTABLE_SHARD, ShardSummary())
    is_done = summary.seq == fold.seq and not _news(state, current, fold, wanted) and not _unindexed(state, fold)
    if is_done and not purges.open_in(fold, members):
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
        append = partial(log.append, epoch=lease.epoch, run_id=run_id, scope=wanted.scope, refresh=wanted.refresh)
        fold = log.seal(log.read(), epoch=lease.epoch, run_id=run_id)
        waiting = iter(_news(state, current, fold, wanted))
        while chunk := list(islice(waiting, DIDS_PER_ENTRY)):
            lease.check()
            dids = {one.did: _result(state, one, wanted, run_id) for one in chunk}
            fold = append(fold, dids=dids)
        # Nobody else works on this shard, so its purges are carried out here.
        while some := purges.open_in(fold, members)[:PURGED_PER_ENTRY]:
            lease.check()
            now, config_hash = state.effects.now_text(), state.config.config_hash
            dids = {
                did: RepoOutcome.purged(did, wanted, finished_at=now, run_id=run_id, config_hash=config_hash)
                for did in some
                if did in purges.dids
            }
            fold = append(fold, dids=dids, purged=some)
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
