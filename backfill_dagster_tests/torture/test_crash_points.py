"""A process may die, a write may tear, the disk may refuse and the power may fail at every single durable call.

`make test` tries every kind of call in every scene and every blow; `make torture` tries every call with every blow.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from backfill_dagster_tests.torture import TORTURE
from backfill_dagster_tests.torture.fate import Blow
from backfill_dagster_tests.torture.scenes import Scene, is_entry
from backfill_dagster_tests.torture.trial import trials

SCENES = {"first_run": 100, "refresh": 90, "retry": 60, "upkeep": 90, "recovery": 60}
"""Scene -> the least number of durable calls that it has to have, so that nothing here becomes an empty exercise."""

KINDS = {
    *("create", "write", "sync_file", "sync_folder", "make_folder", "link", "rename", "unlink"),
    *("ledger_bind", "ledger_put", "ledger_clear", "ledger_mark", "ledger_summary", "lease", "host_lease"),
}


def struck(scene: Scene, blow: Blow, name: str) -> list[int]:
    """The calls to strike at: all of them, or this blow's share of the kinds, one call of each."""
    tearable = [number for number, call in enumerate(scene.calls, 1) if call.kind == "write"]
    numbers = tearable if blow is Blow.TORN_WRITE else range(1, len(scene.calls) + 1)
    if TORTURE:
        return list(numbers)
    dice = random.Random(f"{name} {blow}")
    if blow is Blow.TORN_WRITE:
        return [dice.choice(tearable)]
    others = [one for one in Blow if one is not Blow.TORN_WRITE]
    turn = others.index(blow) + list(SCENES).index(name)  # so that a kind meets another blow in each scene
    kinds = sorted({call.kind for call in scene.calls})
    mine = [kind for place, kind in enumerate(kinds) if (place + turn) % len(others) == 0]
    return [dice.choice([n for n in numbers if scene.calls[n - 1].kind == kind]) for kind in mine]


@pytest.mark.timeout(3600 if TORTURE else 120)
@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("blow", Blow)
def test_the_same_commands_again_end_as_if_nothing_had_happened(
    scenes: Mapping[str, Scene], ground: Path, blow: Blow, name: str
) -> None:
    numbers = struck(scenes[name], blow, name)
    assert numbers
    assert trials(scenes[name], blow, numbers, ground) == {}


def test_each_kind_of_call_is_struck_in_each_scene(scenes: Mapping[str, Scene]) -> None:
    for name, scene in scenes.items():
        met = {scene.calls[number - 1].kind for blow in Blow for number in struck(scene, blow, name)}
        assert met == {call.kind for call in scene.calls}, name


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_has_enough_calls(scenes: Mapping[str, Scene], name: str) -> None:
    assert len(scenes[name].calls) >= SCENES[name]


def test_the_scenes_have_every_kind_of_call(scenes: Mapping[str, Scene]) -> None:
    assert {call.kind for scene in scenes.values() for call in scene.calls} == KINDS


def test_the_first_run_has_batches_types_a_quarantine_and_a_did_without_a_host(scenes: Mapping[str, Scene]) -> None:
    scene = scenes["first_run"]
    assert sum(map(is_entry, scene.calls)) == 1 + 2  # a seal, two batches
    assert {record_type for _, _, record_type in scene.end.rows} == {"post", "like"}
    assert len(scene.end.quarantined) == 3
    outcomes = {str(one["outcome"]) for shard in scene.end.log.values() for one in shard.values()}
    assert outcomes == {"complete", "deactivated", "invalid_did"}


@pytest.mark.parametrize("name", ["refresh", "retry", "upkeep", "recovery"])
def test_the_others_have_a_rewrite_that_keeps_neighbours(scenes: Mapping[str, Scene], name: str) -> None:
    """An entry whose parts are published before it deletes others."""
    assert any(
        "rename" in kinds and "unlink" in kinds[kinds.index("rename") :] for kinds in after_entries(scenes[name])
    )


def after_entries(scene: Scene) -> list[list[str]]:
    """What is done to parts after each entry of the shard's log."""
    found: list[list[str]] = []
    for call in scene.calls:
        if is_entry(call):
            found.append([])
        elif found and ("/records/" in call.where or "/quarantine/" in call.where) and "/staging/" not in call.where:
            found[-1].append(call.kind)
    return found


def test_snapshots_are_written_and_deleted(scenes: Mapping[str, Scene]) -> None:
    kinds = {call.kind for scene in scenes.values() for call in scene.calls if "/snapshots/" in call.where}
    assert {"rename", "unlink"} <= kinds


def test_the_recovery_publishes_sweeps_and_mends_before_it_fetches(scenes: Mapping[str, Scene]) -> None:
    calls = scenes["recovery"].calls
    first_part = next(n for n, call in enumerate(calls) if call.kind == "create" and "/staging/" in call.where)
    before = [(call.kind, "/staging/" in call.where) for call in calls[:first_part] if "/.tmp/" not in call.where]
    assert {("rename", False), ("unlink", True), ("unlink", False), ("ledger_put", False)} <= set(before)
