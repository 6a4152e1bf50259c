"""What the protocol promises, one function for each promise.

Those of a world hold in every world that can be reached; those of a step look at the world before it too. A function
says True where its promise is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, zip_longest
from typing import TypeAlias

from backfill_dagster_tests.model.actions import Step
from backfill_dagster_tests.model.folding import fold, rows_of
from backfill_dagster_tests.model.rules import Rules
from backfill_dagster_tests.model.steps import run_alone
from backfill_dagster_tests.model.world import At, Part, World

OfWorld: TypeAlias = Callable[[World], bool]
OfStep: TypeAlias = Callable[[World, Step], bool]
Promise: TypeAlias = OfWorld | OfStep


def the_log_is_dense(world: World) -> bool:
    """Entries have the numbers 1, 2, 3, ..., none is missing, so whoever has read the last one knows all of them."""
    return None not in world.log


def every_epoch_is_one_writer_s(world: World) -> bool:
    """An epoch begins with its seal, and until the next seal all entries are of the writer that sealed."""
    entries = world.read()
    return all(entry.is_seal for entry in entries[:1]) and all(
        after.epoch > before.epoch if after.is_seal else after.epoch == before.epoch
        for before, after in pairwise(entries)
    )


def who_was_told_committed_keeps_it(world: World) -> bool:
    """An entry that a writer took for committed is read by everybody, for ever, under the number that it was told."""
    log = world.read()
    return all(seq <= len(log) and log[seq - 1].epoch == epoch for seq, epoch in world.told)


def live_parts_are_there(world: World) -> bool:
    """Each part that the log says is live is in staging or in records."""
    return fold(world.read()).parts.keys() <= world.staging | world.records


def each_complete_did_has_its_rows_once(world: World) -> bool:
    """The live rows are one version of each DID that has a complete entry, its newest: nothing lost, nothing twice."""
    folded = fold(world.read())
    return folded.live_rows == folded.complete_rows


def the_glob_shows_only_what_was_committed(world: World) -> bool:
    """A file that a plain glob sees is, or was, a part of an entry."""
    return all(any(part in entry.adds for entry in world.read()) for part in world.records)


def the_ledger_is_never_ahead_of_the_log(world: World) -> bool:
    """An item's seq is that of an entry which stands and speaks of the DID; a newer one may be on its way."""
    log = world.read()
    return all(seq <= len(log) and did in dict(log[seq - 1].dids) for did, seq in world.ledger)


def a_finished_run_leaves_all_exact(world: World) -> bool:
    """From the moment that a run has gone through until the next one starts, whatever stalled writers do.

    All that was wanted is there; the rows of a plain glob are the live rows; the ledger says what the log says.
    """
    if world.finished is None:
        return True
    folded = fold(world.read())
    return (
        not folded.pending(world.finished)
        and rows_of(world.records) == folded.live_rows == folded.complete_rows
        and world.ledger == folded.items
    )


def where_nothing_is_left_to_do_the_glob_is_exact(world: World) -> bool:
    """With nothing staged, no dead file and no dead row, a plain glob shows one version of each complete DID."""
    folded = fold(world.read())
    if world.staging or world.records - folded.parts.keys() or folded.with_dead_rows():
        return True
    return rows_of(world.records) == folded.live_rows == folded.complete_rows


def the_next_run_mends_everything(world: World) -> bool:
    """Whenever all writers are dead, the next run goes through by itself, ends exact and leaves no file behind.

    A writer can die anywhere, so this is about the disk in every state that it is ever in.
    """
    if any(writer.at is not At.OFF for writer in world.writers):
        return True
    after = run_alone(world, Rules())
    return (
        after.finished is not None
        and a_finished_run_leaves_all_exact(after)
        and not after.staging
        and after.records == fold(after.read()).parts.keys()
    )


def no_entry_is_ever_replaced_or_deleted(before: World, step: Step) -> bool:
    """The log only grows, at its end, one entry at a time."""
    old, new = before.log, step.world.log
    return new is old or (new[: len(old)] == old and len(new) <= len(old) + 1)


def who_has_lost_the_shard_commits_nothing(before: World, step: Step) -> bool:
    """Once a newer epoch has sealed, no entry of an older one comes to stand.

    (To learn late that one's entry has stood since before that is fine: see `who_was_told_committed_keeps_it`.)
    """
    if step.world.log is before.log:
        return True
    newest = max((entry.epoch for entry in before.read()), default=0)
    return all(new is None or new == old or new.epoch >= newest for old, new in zip_longest(before.log, step.world.log))


def nobody_deletes_a_newer_writers_file(before: World, step: Step) -> bool:
    """What a newer epoch has staged or published is none of an older one's business."""
    return all(part.epoch <= step.epoch for part in _deleted(before, step))


def nobody_deletes_a_live_part(before: World, step: Step) -> bool:
    """A part stays while an entry says that it is live: a writer whose entry stands never discards its parts."""
    deleted = _deleted(before, step)
    return not deleted or deleted.isdisjoint(fold(step.world.read()).parts)


def _deleted(before: World, step: Step) -> frozenset[Part]:
    after = step.world
    if after.staging is before.staging and after.records is before.records:
        return frozenset()
    return (before.staging | before.records) - (after.staging | after.records)


OF_WORLDS: tuple[OfWorld, ...] = (
    the_log_is_dense,
    every_epoch_is_one_writer_s,
    who_was_told_committed_keeps_it,
    live_parts_are_there,
    each_complete_did_has_its_rows_once,
    the_glob_shows_only_what_was_committed,
    the_ledger_is_never_ahead_of_the_log,
    a_finished_run_leaves_all_exact,
    where_nothing_is_left_to_do_the_glob_is_exact,
    the_next_run_mends_everything,
)

OF_STEPS: tuple[OfStep, ...] = (
    no_entry_is_ever_replaced_or_deleted,
    who_has_lost_the_shard_commits_nothing,
    nobody_deletes_a_newer_writers_file,
    nobody_deletes_a_live_part,
)
