"""A writer's work: batches of new rows, the rewrite of superseded ones, and what follows each entry."""

from __future__ import annotations

from collections.abc import Iterator

from backfill_dagster_tests.model.actions import Action, Step
from backfill_dagster_tests.model.folding import Folded, fold
from backfill_dagster_tests.model.putting import finishing, put
from backfill_dagster_tests.model.rules import Rules
from backfill_dagster_tests.model.starting import booked
from backfill_dagster_tests.model.world import At, Entry, Part, Row, World, Writer

BATCH_DIDS = 2
"""DIDs in a batch, at most."""


def work(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Stage the next batch of what is pending; then the rewrite, if rows were superseded; then there's nothing left."""
    folded = fold(me.seen)
    pending = folded.pending(me.wanted)
    if pending:
        entry = _batch(me, folded, frozenset(pending[:BATCH_DIDS]))
        yield _staged(Action.STAGE, world, me, entry, rules)
    elif dead := folded.with_dead_rows():
        if not world.staging | world.records >= frozenset(dead):
            yield Step(Action.OLD_PART_IS_GONE, me.epoch, world.then(me, me.off()))
            return
        yield _staged(Action.STAGE_REWRITE, world, me, _rewrite(me, folded, dead), rules)
    else:
        yield release(world, me)


def _batch(me: Writer, folded: Folded, rows: frozenset[Row]) -> Entry:
    """New rows in one part; they supersede the older rows of their DIDs."""
    part = Part(me.epoch, me.next_seq, rows)
    superseded = frozenset(did for did, _ in rows if did in folded.dids)
    return Entry(me.epoch, frozenset({part}), frozenset(), rows, superseded)


def _rewrite(me: Writer, folded: Folded, dead: list[Part]) -> Entry:
    """Parts with dead rows give way to one with what is live in them.

    The code makes one for each. While the rules are kept there is only one such part in these searches.
    """
    kept = frozenset[Row]().union(*(part.rows - folded.dead_in(part) for part in dead))
    adds = frozenset({Part(me.epoch, me.next_seq, kept)} if kept else ())
    return Entry(me.epoch, adds, frozenset(dead))


def _staged(action: Action, world: World, me: Writer, entry: Entry, rules: Rules) -> Step:
    folder = "staging" if rules.entry_before_publish else "records"
    changes = {folder: getattr(world, folder) | entry.adds}
    if not rules.ledger_after_entry:
        changes["ledger"] = booked(world.ledger, frozenset((did, me.next_seq) for did, _ in entry.dids))
    if not rules.delete_after_entry:
        changes["records"] = changes.get("records", world.records) - entry.removes
    return Step(action, me.epoch, world.then(me, me._replace(at=At.APPENDING, entry=entry), **changes))


def append(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """The commit point: before it nothing counts, after it nothing can be lost."""
    assert me.entry is not None
    yield from put(world, me, me.entry, rules)


def publish(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Rename a part from staging/ to records/. One that is there already was published by a successor."""
    part = me.to_publish[0]
    if part not in world.staging | world.records:
        yield Step(Action.PART_VANISHED, me.epoch, world.then(me, me.off()))
        return
    staging, records = world.staging - {part}, world.records | {part}
    published = finishing(me._replace(to_publish=me.to_publish[1:]))
    yield Step(Action.PUBLISH, me.epoch, world.then(me, published, staging=staging, records=records))


def book(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Write the entry's ledger items; those of a higher seq stay, so a late one does no harm."""
    ledger = booked(world.ledger, me.to_book)
    done = finishing(me._replace(to_book=frozenset()))
    yield Step(Action.BOOK, me.epoch, world.then(me, done, ledger=ledger))


def delete(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Delete a part that the entry replaced; one that a successor has swept is fine."""
    done = finishing(me._replace(to_delete=me.to_delete[1:]))
    yield Step(Action.DELETE, me.epoch, world.then(me, done, records=world.records - {me.to_delete[0]}))


def keep_snapshot(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Between two entries a snapshot of the fold may be written beside the log; a longer one stands."""
    if len(me.seen) <= len(world.snapshot) or me.seen[-1].is_seal:
        return
    kept = world.log[: len(me.seen)] if rules.snapshot_keeps_entries else (None,) * len(me.seen)
    log = kept + world.log[len(me.seen) :]
    yield Step(Action.SNAPSHOT, me.epoch, world.then(me, me, snapshot=me.seen, log=log))


def release(world: World, me: Writer) -> Step:
    """The run has gone through. A lease that is another's by now is left alone."""
    finished = me.wanted if world.lease_epoch == me.epoch else world.finished
    return Step(Action.RELEASE, me.epoch, world.then(me, me.off(), finished=finished))
