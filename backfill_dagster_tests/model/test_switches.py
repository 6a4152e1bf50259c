"""Leave one idea of the protocol out, and a promise breaks: which one first, and how rows are lost or doubled by it.

Run with `-s` to read the shortest ways there.
"""

from __future__ import annotations

import pytest

from backfill_dagster_tests.model import invariants, starts
from backfill_dagster_tests.model.invariants import OF_STEPS, OF_WORLDS, Promise
from backfill_dagster_tests.model.rules import Rules, WhenTaken
from backfill_dagster_tests.model.search import Exploration, explore

READS_ON = Rules(when_taken=WhenTaken.READ_ON)
OVERWRITES = Rules(when_taken=WhenTaken.OVERWRITE)
SWEEPS_ALL = Rules(sweep_spares_newer=False)
PUBLISHES_FIRST = Rules(entry_before_publish=False)
BELIEVES_NO_REPLY = Rules(lost_reply_is_checked=False)
DELETES_ENTRIES = Rules(snapshot_keeps_entries=False)
RECOVERS_FIRST = Rules(seal_before_recovery=False)
BOOKS_FIRST = Rules(ledger_after_entry=False)
DELETES_FIRST = Rules(delete_after_entry=False)

BROKEN_BY: dict[Promise, Rules] = {
    invariants.the_log_is_dense: DELETES_ENTRIES,
    invariants.every_epoch_is_one_writer_s: READS_ON,
    invariants.who_was_told_committed_keeps_it: DELETES_ENTRIES,
    invariants.live_parts_are_there: SWEEPS_ALL,
    invariants.each_complete_did_has_its_rows_once: READS_ON,
    invariants.the_glob_shows_only_what_was_committed: PUBLISHES_FIRST,
    invariants.the_ledger_is_never_ahead_of_the_log: BOOKS_FIRST,
    invariants.a_finished_run_leaves_all_exact: PUBLISHES_FIRST,
    invariants.where_nothing_is_left_to_do_the_glob_is_exact: RECOVERS_FIRST,
    invariants.the_next_run_mends_everything: BELIEVES_NO_REPLY,
    invariants.no_entry_is_ever_replaced_or_deleted: OVERWRITES,
    invariants.who_has_lost_the_shard_commits_nothing: OVERWRITES,
    invariants.nobody_deletes_a_newer_writers_file: SWEEPS_ALL,
    invariants.nobody_deletes_a_live_part: DELETES_FIRST,
}


def broken(rules: Rules, *promises: Promise) -> Exploration:
    """The nearest broken promise, of these or of all; two processes with one life each are enough for every switch."""
    found = explore(starts.refresh(1, 1), rules, promises or (*OF_WORLDS, *OF_STEPS))
    print(found)
    return found


@pytest.mark.parametrize("promise", [*OF_WORLDS, *OF_STEPS], ids=lambda promise: promise.__name__)
def test_every_promise_can_be_broken(promise: Promise) -> None:
    assert broken(BROKEN_BY[promise], promise).broken == (promise.__name__,)


@pytest.mark.parametrize("promise", [*OF_WORLDS, *OF_STEPS], ids=lambda promise: promise.__name__)
def test_every_promise_says_what_it_is(promise: Promise) -> None:
    assert promise.__doc__


def test_without_fencing_a_stalled_writer_commits_parts_that_were_swept() -> None:
    found = broken(READS_ON)
    assert found.broken == ("who_has_lost_the_shard_commits_nothing", "every_epoch_is_one_writer_s")
    lost = broken(READS_ON, invariants.live_parts_are_there).trace()
    assert "epoch 2 stages a part" in lost[7]
    assert any("epoch 3 sweeps a file" in line for line in lost)
    assert any("epoch 2 finds its number taken and reads on" in line for line in lost)


def test_without_fencing_rows_are_there_twice() -> None:
    # Both fetch the new DID; the stalled one's entry knows nothing of the other's, so it supersedes nothing of it.
    twice = broken(READS_ON, invariants.each_complete_did_has_its_rows_once)
    assert twice.broken
    assert sum("c1" in line and "log[" in line for line in twice.trace()) == 2


def test_without_fencing_by_overwriting_what_was_committed_is_gone() -> None:
    found = broken(OVERWRITES)
    assert found.broken == ("no_entry_is_ever_replaced_or_deleted",)
    assert broken(OVERWRITES, invariants.who_was_told_committed_keeps_it).broken
    assert broken(OVERWRITES, invariants.live_parts_are_there).broken


def test_a_sweep_that_ignores_the_epoch_deletes_the_successors_part() -> None:
    found = broken(SWEEPS_ALL)
    assert found.broken == ("nobody_deletes_a_newer_writers_file",)
    *_, staged, swept = found.trace()
    assert "epoch 3 stages a part" in staged
    assert "epoch 2 sweeps a file" in swept
    assert broken(SWEEPS_ALL, invariants.live_parts_are_there).broken
    assert broken(SWEEPS_ALL, invariants.the_next_run_mends_everything).broken


def test_parts_published_before_the_entry_double_rows_in_a_plain_glob() -> None:
    found = broken(PUBLISHES_FIRST)
    assert found.broken == ("the_glob_shows_only_what_was_committed",)
    # A run has finished, and rows show twice: a stalled writer's part of the same rows lies beside its own.
    late = broken(PUBLISHES_FIRST, invariants.a_finished_run_leaves_all_exact)
    assert late.broken
    assert "epoch 3 has finished" in late.trace()[-1]
    assert sum("records +part" in line and "{b1}" in line for line in late.trace()) == 2
    # Nothing is lost by it: the next run sweeps it.
    assert not broken(PUBLISHES_FIRST, invariants.live_parts_are_there, invariants.the_next_run_mends_everything).broken


def test_a_lost_reply_taken_for_a_conflict_loses_the_rows() -> None:
    found = broken(BELIEVES_NO_REPLY)
    assert found.broken == ("nobody_deletes_a_live_part", "live_parts_are_there", "the_next_run_mends_everything")
    assert found.trace() == [
        " 1. epoch 2 takes the lease",
        " 2. epoch 2 reads the log",
        " 3. epoch 2 seals the log | log[3] = seal of epoch 2",
        " 4. epoch 2 finds no live part in staging and none missing",
        " 5. epoch 2 writes the ledger items that are behind",
        " 6. epoch 2 finds nothing left to sweep",
        " 7. epoch 2 stages a part of new rows | staging +part 4-2{a2 c1}",
        " 8. epoch 2 appends its entry, and the reply is lost | log[4] = epoch 2 +part 4-2{a2 c1}",
        " 9. epoch 2 takes its entry for refused, discards its parts and stops | staging -part 4-2{a2 c1}",
    ]


def test_a_snapshot_that_deletes_entries_frees_the_number_that_a_stalled_writer_counts_on() -> None:
    assert broken(DELETES_ENTRIES).broken == ("no_entry_is_ever_replaced_or_deleted", "the_log_is_dense")
    lost = broken(DELETES_ENTRIES, invariants.who_was_told_committed_keeps_it)
    assert lost.broken
    assert "epoch 2 appends its entry | log[4]" in lost.trace()[-1]
    assert broken(DELETES_ENTRIES, invariants.live_parts_are_there).broken


def test_recovery_before_the_seal_sweeps_what_is_committed_meanwhile() -> None:
    found = broken(RECOVERS_FIRST)
    assert found.broken == ("nobody_deletes_a_live_part", "live_parts_are_there")


def test_a_ledger_written_before_the_entry_is_ahead_of_the_log() -> None:
    assert broken(BOOKS_FIRST).broken == ("the_ledger_is_never_ahead_of_the_log",)


def test_an_old_part_deleted_before_the_entry_is_lost_with_the_writer() -> None:
    found = broken(DELETES_FIRST)
    assert found.broken == ("nobody_deletes_a_live_part", "live_parts_are_there")
    assert broken(DELETES_FIRST, invariants.the_next_run_mends_everything).broken
