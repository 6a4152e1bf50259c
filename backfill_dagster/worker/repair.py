"""Mending what has been damaged from outside: bit rot, lost files, a log cut short, a ledger of yesterday.

What follows from the log is written again; what can't be told any more is voided, and its accounts are pending. Nothing
that can't be proved is called complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backfill_dagster.errors import LeaseHeldError
from backfill_dagster.ledger import Ledger
from backfill_dagster.model import UNROUTABLE_SHARD, LedgerItem, Outcome, PlannedDid, RepoOutcome, Wanted
from backfill_dagster.plan import Plan
from backfill_dagster.plan.unroutable import log_unroutable
from backfill_dagster.records.audit import RowsFound, lost_parts, rows_found
from backfill_dagster.records.entry import outcome_bytes
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.records.part_file import parts_of
from backfill_dagster.records.rewrite import PARTS_PER_ENTRY
from backfill_dagster.standing import logged_shards
from backfill_dagster.state import BackfillState
from backfill_dagster.store import ObjectStore
from backfill_dagster.worker.purge import carry_out, restore_orders
from backfill_dagster.worker.recover import newest_epoch, publish_live_parts, sweep
from backfill_dagster.worker.rewriting import cut
from backfill_dagster.worker.upkeep import on_each_shard
from backfill_dagster.worker.writer import ShardWriter

PART_LOST = "part_lost"
"""Error code of an account whose rows, or whose outcome, were lost."""

DIDS_PER_ENTRY = 300

AHEAD_MAX = 10_000
"""Entries that a log can have lost at its end, to be believed: an item that says more is wrong itself."""


@dataclass
class Mended:
    """What was wrong with a shard and has been mended.

    Attributes:
        voids: seq -> what was wrong with the log entry.
        lost_parts: path -> what was wrong with the part.
        reopened: accounts that are pending now, because rows or an outcome of theirs are lost.
        gone: accounts that have lost something and that no run fetches here: delisted, or another shard's by now.
        files: parts that were published late, or were nobody's and are deleted.
        items: ledger items written.
        snapshots: snapshots that didn't say what the log says.
    """

    voids: dict[int, str] = field(default_factory=dict)
    lost_parts: dict[str, str] = field(default_factory=dict)
    reopened: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    files: int = 0
    items: int = 0
    snapshots: int = 0

    @property
    def is_nothing(self) -> bool:
        """Whether all was well."""
        return self == Mended()


@dataclass
class Repaired:
    """What a repair came to.

    Attributes:
        shards: shard -> what was mended in it; of shards that were well, nothing.
        held: shard -> who works on it; it was left as it is.
        orders: number -> what was wrong with the purge order, which says now what the logs know of it.
    """

    shards: dict[str, Mended] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    orders: dict[int, str] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Accounts that the next run fetches anew."""
        return sum(len(one.reopened) for one in self.shards.values())


async def repair_backfill(state: BackfillState, plan: Plan, scope: str, *, run_id: str) -> Repaired:
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
    summed_up = {key: one.seq for key, one in state.ledger.summaries().items()}
    found: dict[str, Mended] = {}

    def read(log: ShardLog) -> Fold:
        found[log.shard], fold = read_what_is_left(log, state.ledger, summed_up.get(log.shard, 0))
        return fold

    def recover_files(store: ObjectStore, ledger: Ledger, fold: Fold, *, backfill: str, shard: str) -> None:
        """As `recover`, but lost parts are what a repair is for, and the ledger comes last."""
        found[shard].files = publish_live_parts(store, fold, shard)
        found[shard].files += sweep(store, fold, shard, parts_of(store, shard))

    def work(writer: ShardWriter, planned: Sequence[PlannedDid]) -> Mended:
        return mend(writer, planned, found[writer.shard])

    upkeep = await on_each_shard(
        state,
        plan,
        scope,
        keys,
        work,
        run_id=run_id,
        epoch_of=lambda key: max(state.log(key).last_epoch(), newest_epoch(state.store, key)),
        read=read,
        recover=recover_files,
    )
    repaired = Repaired({key: one for key, one in upkeep.done.items() if not one.is_nothing}, upkeep.held)
    repaired.orders = restore_orders(state, keys)
    await _what_follows(state, plan, Wanted(scope, plan.refresh), repaired, run_id)
    return repaired


async def _what_follows(state: BackfillState, plan: Plan, wanted: Wanted, repaired: Repaired, run_id: str) -> None:
    """What the plan says of accounts without a host, and purges that void entries had carried out."""
    if UNROUTABLE_SHARD in repaired.shards:
        homeless = plan.dids(UNROUTABLE_SHARD)
        try:
            await asyncio.to_thread(log_unroutable, state, homeless, wanted=wanted, run_id=run_id)
        except LeaseHeldError as held:
            repaired.held[UNROUTABLE_SHARD] = str(held)
    purging = await carry_out(state, plan, wanted.scope, run_id=run_id, leave_out=list(repaired.held))
    repaired.held |= purging.held


def read_what_is_left(log: ShardLog, ledger: Ledger, summed_up: int) -> tuple[Mended, Fold]:
    """The fold of the entries that can count, under the leases; numbers that were lost are taken for ever.

    A ledger that knows later entries proves that the log was cut short: those numbers must not be used again, or
    nobody could tell their old items from new ones.

    Args:
        log: of the shard.
        ledger: the index.
        summed_up: the entry that the shard's summary is as of.
    """
    indexed = (*ledger.seqs(log.shard).values(), summed_up)  # before the log, which a successor may be writing to
    last = log.last_seq()
    newest = max((seq for seq in indexed if seq <= last + AHEAD_MAX), default=0)
    cut_off = dict.fromkeys(range(last + 1, newest + 1), f"is missing: the ledger knows entry {newest}")
    said = cut_off | log.damaged()
    log.fill(max(newest, last))
    mended = Mended(voids={seq: said.get(seq, problem) for seq, problem in log.damaged().items()})
    whole = log.read(voids=mended.voids.keys(), whole=True)
    mended.snapshots = len(log.bad_snapshots(whole))
    if mended.snapshots or mended.voids:
        log.drop_snapshots()
    return mended, whole


def mend(writer: ShardWriter, planned: Sequence[PlannedDid], mended: Mended) -> Mended:
    """Reopen who has lost something, take lost parts out of the log, list void entries, write the ledger anew.

    With void entries the log stays unreadable for others until the last entry, which lists them: so nobody sees half
    of it. Lost parts stop being live with the last accounts that are reopened for them.
    """
    store, fold = writer.state.store, writer.fold
    mended.lost_parts = lost_parts(store, fold)
    rows = rows_found(store, fold, mended.lost_parts)
    lost = sorted({*_without_entry(writer, mended.voids), *_with_other_rows(fold, rows)})
    reopened = {did: _reopened(writer, did, rows.get(did, RowsFound())) for did in lost}
    for content in _entries(reopened, list(mended.lost_parts), sorted(mended.voids)):
        writer.append(**content)
    for path in mended.lost_parts:
        store.delete(path)
    mended.items = _mend_items(writer)
    fetched = {one.did for one in planned if not one.delisted and one.shard != UNROUTABLE_SHARD}
    mended.reopened = [did for did in lost if did in fetched]
    mended.gone = [did for did in lost if did not in fetched]
    return mended


def _entries(reopened: Mapping[str, RepoOutcome], lost: Sequence[str], voids: Sequence[int]) -> list[dict[str, Any]]:
    """What the entries of a repair say, in order."""
    chunks = cut(reopened, DIDS_PER_ENTRY, lambda did: outcome_bytes(reopened[did]))
    entries: list[dict[str, Any]] = [{"dids": {did: reopened[did] for did in dids}} for dids in chunks]
    for start in range(0, len(lost), PARTS_PER_ENTRY):
        if start or not entries:
            entries.append({})
        entries[-1]["removes"] = lost[start : start + PARTS_PER_ENTRY]
    if voids:
        entries = entries or [{}]
        entries[-1]["voids"] = voids
    return entries


def _with_other_rows(fold: Fold, rows: Mapping[str, RowsFound]) -> Iterator[str]:
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


def _without_entry(writer: ShardWriter, voids: Collection[int]) -> list[str]:
    """The DIDs whose newest outcome, by the ledger, was in an entry that is lost."""
    known = writer.fold.dids
    seqs = writer.state.ledger.seqs(writer.shard)
    return [did for did, seq in seqs.items() if did not in known or (seq in voids and seq > known[did][1])]


def _reopened(writer: ShardWriter, did: str, rows: RowsFound) -> RepoOutcome:
    """Pending, with the rows that are left; never the base of a delta.

    Of an account that the log has lost, the ledger may still know who it was, and of what scope its rows are.
    """
    known = writer.fold.dids.get(did)
    item = None if known else writer.state.ledger.item(writer.shard, did)
    before = known[0] if known else item.result if item else RepoOutcome(did=did, outcome=Outcome.PENDING)
    has_rows = bool(rows.by_type or rows.quarantined)
    return replace(
        before,
        outcome=Outcome.PENDING,
        scope=writer.wanted.scope,
        rev=None,
        commit_cid=None,
        last_complete_rev=None,
        signature_checked=False,
        tree=(),
        records_by_type=dict(rows.by_type),
        quarantined=rows.quarantined,
        rows_scope=(before.rows_scope or writer.wanted.scope) if has_rows else "",
        http_status=None,
        error_code=PART_LOST,
        error_detail="rows or the outcome of this account were lost; the next run fetches it anew",
        error_headers={},
        error_body_sha256=None,
        finished_at=writer.state.effects.now_text(),
        run_id=writer.run_id,
    )


def _mend_items(writer: ShardWriter) -> int:
    """Write every item that isn't the log's word; returns how many."""
    name, shard, ledger = writer.state.config.name, writer.shard, writer.state.ledger
    there = {item.result.did: item for item in ledger.items(shard)}
    seqs = {did: item.seq for did, item in there.items()}
    wrong = []
    for did, (result, seq) in writer.fold.dids.items():
        item = LedgerItem(backfill=name, shard=shard, seq=seq, result=result.for_ledger)
        if there.get(did) != ledger.as_kept(item):
            wrong.append(item)
    for start in range(0, len(wrong), DIDS_PER_ENTRY):
        writer.check_leases()  # a successor's items are newer than any of these
        ledger.put(wrong[start : start + DIDS_PER_ENTRY], over=seqs)
    return len(wrong)
