"""Mending what has been damaged from outside: bit rot, lost files, a log cut short, a ledger of yesterday.

What follows from the log is written again; what can't be told any more is voided, and its accounts are pending. Nothing
that can't be proved is called complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backfill_dagster.ledger import Ledger
from backfill_dagster.model import LedgerItem, Outcome, PlannedDid, RepoOutcome
from backfill_dagster.plan import Plan
from backfill_dagster.records.audit import RowsFound, lost_parts, rows_found
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.records.rewrite import PARTS_PER_ENTRY, Rewrite
from backfill_dagster.standing import logged_shards
from backfill_dagster.state import BackfillState
from backfill_dagster.store import ObjectStore
from backfill_dagster.worker.recover import publish_live_parts, sweep
from backfill_dagster.worker.rewriting import chunked
from backfill_dagster.worker.upkeep import Upkeep, on_each_shard
from backfill_dagster.worker.writer import ShardWriter

PART_LOST = "part_lost"
"""Error code of an account whose rows, or whose outcome, were lost."""

DIDS_PER_ENTRY = 300


@dataclass
class Mended:
    """What was wrong with a shard and has been mended.

    Attributes:
        voids: seq -> what was wrong with the log entry.
        lost_parts: path -> what was wrong with the part.
        reopened: accounts that are pending now, because rows or an outcome of theirs are lost.
        items: ledger items written.
        snapshots: snapshots that didn't say what the log says.
    """

    voids: dict[int, str] = field(default_factory=dict)
    lost_parts: dict[str, str] = field(default_factory=dict)
    reopened: list[str] = field(default_factory=list)
    items: int = 0
    snapshots: int = 0

    @property
    def is_nothing(self) -> bool:
        """Whether all was well."""
        return not (self.voids or self.lost_parts or self.reopened or self.items or self.snapshots)


async def repair_backfill(state: BackfillState, plan: Plan, scope: str, *, run_id: str) -> Upkeep[Mended]:
    """Look through every shard, and mend it.

    Args:
        state: the opened state.
        plan: the plan; without it nothing can be repaired.
        scope: of the records wanted.
        run_id: names the repair in log and leases.

    Raises:
        StateError: the state can't be read or written; what was mended stands.
    """
    keys = sorted({*plan.shards(), *logged_shards(state)})
    found: dict[str, Mended] = {}

    def read(log: ShardLog) -> Fold:
        found[log.shard], fold = read_what_is_left(log, state.ledger)
        return fold

    def work(writer: ShardWriter, planned: Sequence[PlannedDid]) -> Mended:
        return mend(writer, found[writer.shard])

    return await on_each_shard(
        state,
        plan,
        scope,
        keys,
        work,
        run_id=run_id,
        epoch_of=lambda key: state.log(key).last_epoch(),
        read=read,
        recover=_recover_files,
    )


def read_what_is_left(log: ShardLog, ledger: Ledger) -> tuple[Mended, Fold]:
    """The fold of the entries that can count, under the leases; numbers that were lost are taken for ever.

    A ledger that knows later entries proves that the log was cut short: those numbers must not be used again, or
    nobody could tell their old items from new ones.
    """
    newest = max(ledger.seqs(log.shard).values(), default=0)
    problems = log.damaged()
    log.fill(max(newest, log.last_seq()))
    mended = Mended(voids=log.damaged() | problems)
    whole = log.read(voids=mended.voids.keys(), whole=True)
    mended.snapshots = len(log.bad_snapshots(whole))
    if mended.snapshots or mended.voids:
        log.drop_snapshots()
    return mended, whole


def _recover_files(store: ObjectStore, ledger: Ledger, fold: Fold, *, backfill: str, shard: str) -> None:
    """As `recover`, but lost parts are what a repair is for, and the ledger comes last."""
    publish_live_parts(store, fold, shard)
    sweep(store, fold, shard)


def mend(writer: ShardWriter, mended: Mended) -> Mended:
    """Reopen who has lost something, take lost parts out of the log, list void entries, write the ledger anew.

    The log stays unreadable for others until the last entry, which lists what is void: so nobody sees half of it.
    """
    store, fold, ledger = writer.state.store, writer.fold, writer.state.ledger
    mended.lost_parts = lost_parts(store, fold)
    rows = rows_found(store, fold, mended.lost_parts)
    reopened = {
        **_without_entry(writer, mended.voids),
        **{did: _reopened(writer, did, rows.get(did, RowsFound())) for did in _with_other_rows(fold, rows)},
    }
    mended.reopened = sorted(reopened)
    for chunk in chunked(mended.reopened, DIDS_PER_ENTRY):
        writer.append(dids={did: reopened[did] for did in chunk})
    gone = list(chunked(mended.lost_parts, PARTS_PER_ENTRY))
    for paths in gone:
        writer.commit_rewrite(Rewrite(removes=list(paths)))
    if mended.voids:
        writer.append(voids=sorted(mended.voids))
    mended.items = _mend_items(writer, ledger)
    return mended


def _with_other_rows(fold: Fold, rows: Mapping[str, RowsFound]) -> Iterable[str]:
    """The DIDs whose live rows are not those of their outcome."""
    nothing = RowsFound()
    for did in {*fold.dids, *rows}:
        found = rows.get(did, nothing)
        result = fold.dids[did][0] if did in fold.dids else None
        if result is not None and result.outcome is Outcome.PURGED:
            continue  # nothing may bring it back
        said = ({}, 0) if result is None else (dict(result.records_by_type), result.quarantined)
        if (dict(found.by_type), found.quarantined) != said:
            yield did


def _without_entry(writer: ShardWriter, voids: Mapping[int, str]) -> dict[str, RepoOutcome]:
    """The DIDs whose newest outcome, by the ledger, was in an entry that is lost."""
    known = writer.fold.dids
    seqs = writer.state.ledger.seqs(writer.shard)
    lost = [did for did, seq in seqs.items() if did not in known or (seq in voids and seq > known[did][1])]
    return {did: _reopened(writer, did, None) for did in lost}


def _reopened(writer: ShardWriter, did: str, rows: RowsFound | None) -> RepoOutcome:
    """Pending, with the rows that are left (None: those that the log says); never the base of a delta."""
    known = writer.fold.dids.get(did)
    before = known[0] if known else RepoOutcome(did=did, outcome=Outcome.PENDING)
    if rows is None:
        by_type, quarantined = dict(before.records_by_type), before.quarantined
    else:
        by_type, quarantined = dict(rows.by_type), rows.quarantined
    return replace(
        before,
        outcome=Outcome.PENDING,
        scope=writer.wanted.scope,
        rev=None,
        commit_cid=None,
        last_complete_rev=None,
        signature_checked=False,
        tree=(),
        records_by_type=by_type,
        quarantined=quarantined,
        rows_scope=before.rows_scope if by_type or quarantined else "",
        error_code=PART_LOST,
        error_detail="rows or the outcome of this account were lost; the next run fetches it anew",
        finished_at=writer.state.effects.now_text(),
        run_id=writer.run_id,
    )


def _mend_items(writer: ShardWriter, ledger: Ledger) -> int:
    """Write every item that isn't the log's word; returns how many."""
    name, shard, fold = writer.state.config.name, writer.shard, writer.fold
    there = {item.result.did: item for item in ledger.items(shard)}
    wrong = []
    for did, (result, seq) in fold.dids.items():
        item = LedgerItem(backfill=name, shard=shard, seq=seq, result=result.for_ledger)
        if there.get(did) != item:
            wrong.append(item)
    for chunk in chunked(wrong, DIDS_PER_ENTRY):
        ledger.put(chunk, over_any=True)
    return len(wrong)
