"""A writer's first steps: lease, log, seal, and recovery of what a predecessor left.

Lists are taken anew at each step of a loop here, where the code takes one and works it off: what appears behind such a
list is missed by the code, and comes after the loop's end in the model; what vanishes from it ends the code's run at
worst, and a writer may die anywhere in the model.
"""

from __future__ import annotations

from collections.abc import Iterator

from backfill_dagster_tests.model.actions import Action, Step
from backfill_dagster_tests.model.folding import fold
from backfill_dagster_tests.model.putting import put
from backfill_dagster_tests.model.rules import Rules
from backfill_dagster_tests.model.world import At, Entry, Items, Part, World, Writer, by_name


def take_lease(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Always possible: a lease can run out at any moment, and its holder needn't notice."""
    if me.starts_left:
        epoch = world.lease_epoch + 1
        for wanted in world.plans:
            started = Writer(me.starts_left - 1, At.READING, epoch, wanted)
            yield Step(Action.TAKE_LEASE, epoch, world.then(me, started, lease_epoch=epoch, finished=None))


def read_log(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Read the log, from the newest snapshot on; by the time of the seal it may have grown."""
    seen = world.read()
    if seen and seen[-1].epoch >= me.epoch:
        yield Step(Action.SEAL_IS_LATE, me.epoch, world.then(me, me.off()))
        return
    following = At.SEALING if rules.seal_before_recovery else At.RECOVERING
    yield Step(Action.READ, me.epoch, world.then(me, me._replace(at=following, seen=seen)))


def seal(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Append an entry without data: older epochs can't append any more, the number they count on is taken."""
    yield from put(world, me, Entry(me.epoch), rules)


def publish_live_parts(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Finish what a predecessor had committed: its parts, one by one; then look for lost parts."""
    parts = fold(me.seen).parts.keys()
    live = by_name(world.staging & parts)
    if not live and not parts <= world.records:
        yield Step(Action.PART_IS_MISSING, me.epoch, world.then(me, me.off()))
        return
    if not live:
        yield Step(Action.RECOVER_DONE, me.epoch, world.then(me, me._replace(at=At.MENDING)))
        return
    staging, records = world.staging - {live[0]}, world.records | {live[0]}
    yield Step(Action.RECOVER_PART, me.epoch, world.then(me, me, staging=staging, records=records))


def mend_ledger(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Write the items that are older than the log's."""
    ledger = booked(world.ledger, fold(me.seen).items)
    yield Step(Action.MEND, me.epoch, world.then(me, me._replace(at=At.SWEEPING), ledger=ledger))


def sweep(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """Delete files that aren't live and that an older epoch wrote, staged ones first."""
    live = fold(me.seen).parts.keys()
    for folder in ("staging", "records"):
        files: frozenset[Part] = getattr(world, folder)
        dead = by_name(part for part in files - live if part.epoch < me.epoch or not rules.sweep_spares_newer)
        if dead:
            yield Step(Action.SWEEP, me.epoch, world.then(me, me, **{folder: files - {dead[0]}}))
            return
    following = At.WORKING if rules.seal_before_recovery else At.SEALING
    yield Step(Action.SWEEP_DONE, me.epoch, world.then(me, me._replace(at=following)))


def booked(ledger: Items, items: Items) -> Items:
    """The ledger with these items; one that stands at a higher seq stays."""
    seqs = dict(ledger)
    seqs.update((did, max(seq, seqs.get(did, 0))) for did, seq in items)
    return frozenset(seqs.items())
