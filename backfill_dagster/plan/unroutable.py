"""The reserved shard `_unroutable`: DIDs without a host get their log entry and ledger item from the planner itself.

The plan's generation is committed first; this is the second step, done again by every plan until both agree.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from itertools import islice

from backfill_dagster import __version__
from backfill_dagster.ledger import Lease, ShardSummary
from backfill_dagster.model import UNROUTABLE_SHARD, LedgerItem, Outcome, PlannedDid, RepoOutcome, Wanted
from backfill_dagster.records.fold import Fold
from backfill_dagster.state import BackfillState

DIDS_PER_ENTRY = 300
"""At most some 2.5 KiB each (a long source text, a cut error text): well under the log's 1 MiB an entry."""


def log_unroutable(
    state: BackfillState, planned: Iterable[PlannedDid], *, wanted: Wanted, run_id: str
) -> dict[Outcome, int]:
    """Append what the log of the reserved shard doesn't say yet; returns its outcomes.

    Raises:
        LeaseHeldError: another planner is at it.
        FencedError: another planner took over.
    """
    current = [one for one in planned if not one.delisted]
    outcomes: dict[Outcome, int] = {}
    for one in current:
        outcome = one.outcome or Outcome.PENDING
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    log = state.log(UNROUTABLE_SHARD)
    fold = log.read()
    if not current and fold.seq == 0:
        return outcomes
    news = [one for one in current if not _is_known(one, fold, wanted)]
    if not news and all(seq <= state.ledger.seqs(UNROUTABLE_SHARD).get(did, 0) for did, (_, seq) in fold.dids.items()):
        return outcomes
    lease = Lease.acquire(
        state.ledger.leases,
        f"{state.config.name}/{UNROUTABLE_SHARD}",
        owner=f"plan {run_id} of {state.config.name}, pid {os.getpid()} on {socket.gethostname()}",
        run_id=run_id,
        lease_seconds=state.config.processing.lease_seconds,
        at_least_epoch=fold.epoch + 1,
    )
    try:
        fold = log.seal(log.read(), epoch=lease.epoch, run_id=run_id)
        waiting = iter(one for one in current if not _is_known(one, fold, wanted))
        while chunk := list(islice(waiting, DIDS_PER_ENTRY)):
            lease.check()
            dids = {one.did: _result(state, one, wanted, run_id) for one in chunk}
            fold = log.append(
                fold, epoch=lease.epoch, run_id=run_id, scope=wanted.scope, refresh=wanted.refresh, dids=dids
            )
        _index(state, fold, outcomes)
    finally:
        lease.release()
    return outcomes


def _is_known(one: PlannedDid, fold: Fold, wanted: Wanted) -> bool:
    known = fold.dids.get(one.did)
    if known is None:
        return False
    result = known[0]
    said = (result.outcome, result.error_code or "", result.scope)
    return said == (one.outcome, one.error_code, wanted.scope) and result.refresh >= wanted.refresh


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


def _index(state: BackfillState, fold: Fold, outcomes: dict[Outcome, int]) -> None:
    known = state.ledger.seqs(UNROUTABLE_SHARD)
    state.ledger.put(
        [
            LedgerItem(backfill=state.config.name, shard=UNROUTABLE_SHARD, seq=seq, result=result)
            for did, (result, seq) in fold.dids.items()
            if known.get(did, 0) < seq
        ]
    )
    summary = ShardSummary(outcomes={o.value: n for o, n in outcomes.items()}, rows={}, seq=fold.seq)
    state.ledger.put_summary(UNROUTABLE_SHARD, summary)
