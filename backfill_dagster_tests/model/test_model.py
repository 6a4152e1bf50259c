"""The protocol keeps all its promises, in every world that its processes can get into."""

from __future__ import annotations

import pytest

from backfill_dagster_tests.model import starts
from backfill_dagster_tests.model.actions import Action
from backfill_dagster_tests.model.folding import fold
from backfill_dagster_tests.model.rules import Rules
from backfill_dagster_tests.model.search import Exploration, explore
from backfill_dagster_tests.model.steps import CALLS, run_alone
from backfill_dagster_tests.model.world import At, World


@pytest.fixture(scope="module")
def first_fetch() -> Exploration:
    return explore(starts.first_fetch(2, 2), Rules())


@pytest.fixture(scope="module")
def refresh() -> Exploration:
    return explore(starts.refresh(2, 2), Rules())


@pytest.fixture(scope="module")
def new_plan() -> Exploration:
    return explore(starts.first_fetch_and_refresh(1, 1), Rules())


@pytest.fixture(scope="module")
def everything(first_fetch: Exploration, refresh: Exploration, new_plan: Exploration) -> list[Exploration]:
    return [first_fetch, refresh, new_plan]


def stalled(world: World) -> set[At]:
    """Where the writers are whose shard a newer epoch has sealed, and that don't know it yet."""
    newest = max((entry.epoch for entry in world.read()), default=0)
    return {writer.at for writer in world.writers if writer.at is not At.OFF and writer.epoch < newest}


def test_two_processes_at_a_first_fetch(first_fetch: Exploration) -> None:
    assert not first_fetch.broken, first_fetch
    assert len(first_fetch.came_by) > 70_000


def test_two_processes_at_a_refresh_with_its_rewrite(refresh: Exploration) -> None:
    assert not refresh.broken, refresh
    assert len(refresh.came_by) > 70_000


def test_a_refresh_is_planned_while_a_first_fetch_is_under_way(new_plan: Exploration) -> None:
    assert not new_plan.broken, new_plan
    assert len(new_plan.came_by) > 6_000


def test_three_processes_at_once() -> None:
    found = explore(starts.refresh(1, 1, 1), Rules())
    assert not found.broken, found
    assert len(found.came_by) > 50_000
    assert any(len([writer for writer in world.writers if writer.at is At.APPENDING]) == 3 for world in found.came_by)


def test_every_step_of_the_model_has_been_taken(everything: list[Exploration]) -> None:
    taken = {action for found in everything for action in found.actions}
    assert taken == set(Action) - {Action.READ_ON}  # which breaks the rules


def test_a_writer_has_been_overtaken_before_each_of_its_calls(everything: list[Exploration]) -> None:
    assert {at for found in everything for world in found.came_by for at in stalled(world)} == set(At) - {At.OFF}


def test_a_stalled_writer_has_woken_up_after_its_successor_was_done(everything: list[Exploration]) -> None:
    woken = {
        at for found in everything for world in found.came_by if world.finished is not None for at in stalled(world)
    }
    assert woken >= {At.RECOVERING, At.SWEEPING, At.APPENDING, At.UNSURE, At.PUBLISHING, At.BOOKING, At.DELETING}


@pytest.mark.parametrize("is_swept", [False, True], ids=["staged after the sweep", "swept"])
def test_a_zombie_has_lost_the_race_with_data_in_hand(refresh: Exploration, is_swept: bool) -> None:
    assert any(
        writer.at is At.APPENDING
        and writer.entry is not None
        and world.entry(writer.next_seq) is not None
        and (not writer.entry.adds <= world.staging) is is_swept
        for world in refresh.came_by
        for writer in world.writers
    )


def test_two_writers_have_had_the_same_rows_in_hand(refresh: Exploration) -> None:
    assert any(len({part.rows for part in world.staging}) < len(world.staging) for world in refresh.came_by)


def test_all_four_lives_have_sealed_and_the_last_has_finished(refresh: Exploration) -> None:
    assert any(world.read()[-1].epoch == 5 and world.finished for world in refresh.came_by)


def test_a_rewrite_has_been_finished_by_the_next_run(refresh: Exploration) -> None:
    # Committed by one epoch, published by another, and its old part swept.
    assert any(
        part.epoch == 2 and part in world.records and world.finished and world.read()[-1].epoch == 3
        for world in refresh.came_by
        for entry in world.read()
        if entry.removes
        for part in entry.adds
    )


def test_a_plain_glob_has_seen_both_parts_in_the_middle_of_a_rewrite(refresh: Exploration) -> None:
    # Nobody promises more between publish and delete; a model without this moment would promise too much.
    assert any(
        entry.adds and entry.adds | entry.removes <= world.records
        for world in refresh.came_by
        for entry in world.read()
        if entry.removes
    )


def test_a_run_alone_does_what_was_wanted_and_the_next_one_only_seals() -> None:
    start = starts.refresh()
    once = run_alone(start, Rules())
    assert fold(once.read()).complete_rows == (("a", 2), ("b", 1), ("c", 1))
    assert [entry.is_seal for entry in once.read()] == [True, False, True, False, False]
    twice = run_alone(once, Rules())
    assert (twice.records, twice.ledger) == (once.records, once.ledger)
    assert len(twice.read()) == len(once.read()) + 1


def test_every_place_has_its_call() -> None:
    assert set(CALLS) == set(At)
