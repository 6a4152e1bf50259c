"""The one call that everything rests on: put-if-absent under the next number, and what a writer makes of the reply.

Seals and entries with data both go through here, as they go through `ShardLog._put`.
"""

from __future__ import annotations

from collections.abc import Iterator

from backfill_dagster_tests.model.actions import Action, Step
from backfill_dagster_tests.model.rules import Rules, WhenTaken
from backfill_dagster_tests.model.world import At, Entry, World, Writer, by_name


def put(world: World, me: Writer, entry: Entry, rules: Rules) -> Iterator[Step]:
    """Put the entry under `me.next_seq`: it stands, or the number is taken; an error that comes back says neither."""
    if world.entry(me.next_seq) is not None and rules.when_taken is not WhenTaken.OVERWRITE:
        yield _number_is_taken(world, me, entry, rules)
        return
    yield _it_stands(world, me, entry, rules, Action.SEAL if entry.is_seal else Action.APPEND)
    unsure = me._replace(at=At.UNSURE, entry=entry)
    yield Step(Action.REPLY_LOST, me.epoch, world.then(me, unsure, log=world.with_entry(me.next_seq, entry)))
    yield Step(Action.REFUSED, me.epoch, world.then(me, unsure))


def read_back(world: World, me: Writer, rules: Rules) -> Iterator[Step]:
    """What stands there? One's own nonce, another's, or nothing: only in the last two cases may a batch be dropped.

    A store that tries again by itself (S3) reports a number that is taken; one that doesn't (a folder) an error. After
    an error the code stops even if it finds its own entry, and touches nothing: the same as dying here.
    """
    assert me.entry is not None
    found = world.entry(me.next_seq)
    if found == me.entry and rules.lost_reply_is_checked:
        yield _it_stands(world, me, me.entry, rules, Action.RECOGNISED)
        return
    if found is not None:
        yield _number_is_taken(world, me, me.entry, rules)
    yield Step(Action.DISCARD, me.epoch, world.then(me, me.off(), staging=world.staging - me.entry.adds))


def _it_stands(world: World, me: Writer, entry: Entry, rules: Rules, action: Action) -> Step:
    """The commit point, and the writer knows it."""
    seq, log = me.next_seq, world.with_entry(me.next_seq, entry)
    mine = me._replace(seen=(*me.seen, entry), entry=None)
    if entry.is_seal:
        sealed = mine._replace(at=At.RECOVERING if rules.seal_before_recovery else At.WORKING)
        return Step(action, me.epoch, world.then(me, sealed, log=log))
    committed = mine._replace(
        to_publish=by_name(entry.adds),
        to_book=frozenset((did, seq) for did, _ in entry.dids),
        to_delete=by_name(entry.removes),
    )
    return Step(action, me.epoch, world.then(me, finishing(committed), log=log, told=world.told | {(seq, me.epoch)}))


def _number_is_taken(world: World, me: Writer, entry: Entry, rules: Rules) -> Step:
    """A seal reads on, for it has no data in hand that could be stale; everything else has lost the shard."""
    if entry.is_seal:
        return Step(Action.SEAL_READS_ON, me.epoch, world.then(me, me._replace(at=At.READING, entry=None)))
    if rules.when_taken is WhenTaken.READ_ON:
        late = me._replace(at=At.APPENDING, seen=world.read(), entry=entry)
        return Step(Action.READ_ON, me.epoch, world.then(me, late))
    return Step(Action.FENCED, me.epoch, world.then(me, me.off()))


def finishing(me: Writer) -> Writer:
    """Where a writer goes on with what follows its last entry."""
    if me.to_publish:
        return me._replace(at=At.PUBLISHING)
    if me.to_book:
        return me._replace(at=At.BOOKING)
    return me._replace(at=At.DELETING if me.to_delete else At.WORKING)
