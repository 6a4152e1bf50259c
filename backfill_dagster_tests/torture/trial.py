"""One trial: a scene, a blow at one call, the same commands again on a healthy disk, and what has to be there then."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from backfill_dagster.errors import FencedError, StateError
from backfill_dagster_tests.torture.fate import Blow, Call
from backfill_dagster_tests.torture.life import Ended, Life
from backfill_dagster_tests.torture.picture import finished_picture
from backfill_dagster_tests.torture.scenes import Scene

REMEDIES = {Blow.FULL: "free space", Blow.FULL_ON: "free space", Blow.FAULT: "check it", Blow.FAULT_ON: "check it"}


def trials(scene: Scene, blow: Blow, numbers: Iterable[int], folder: Path, life: type[Life] = Life) -> dict[str, str]:
    """Strike at each of these calls, each time in a copy of its own; what went wrong, by the call."""
    failures = {}
    for number in numbers:
        call = scene.calls[number - 1]
        copy = folder / f"{blow}-{number}"
        try:
            trial(scene, blow, number, copy, life)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            failures[f"{number} {call.kind} {call.where}"] = f"{type(error).__name__}: {error}"
        shutil.rmtree(copy)
    return failures


def trial(scene: Scene, blow: Blow, number: int, folder: Path, life_of: type[Life] = Life) -> None:
    life_of.begin(scene.base, folder)
    life = life_of(folder, life_of.fate_of(blow, number))
    strays = life.strays()
    ended = life.run(scene.commands)
    assert life.fate.struck, "the life ended before its blow"
    assert kinds(life.fate.calls[:number]) == kinds(scene.calls[:number]), "another life than the unbroken one"
    if blow.error_number is None:
        assert life.fate.is_over, "the blow did not kill"
        assert len(life.fate.calls) == number, "a dead process has gone on"
    else:
        assert_clear(ended, blow, folder)
    if blow.is_power_cut:
        gone = life.cut_power(names_stay=blow is Blow.POWER_CUT_NAMES_KEPT)
        assert not gone, f"promised, and gone: {gone}"
    strays = life.strays() - strays
    assert not strays, f"published, and in no entry: {strays}"
    again = life_of(folder, life_of.fate_of())
    healed = again.run(ended.left)
    if healed.why is not None:
        raise healed.why
    with again.opened() as state:
        other = finished_picture(state).differences(scene.end)
        assert not other, other


def kinds(calls: Iterable[Call]) -> list[str]:
    return [call.kind for call in calls]


def assert_clear(ended: Ended, blow: Blow, folder: Path) -> None:
    """A command that gave up said so in one line with place and remedy; one that didn't has finished its work."""
    if ended.why is None:
        return
    assert isinstance(ended.why, (StateError, FencedError)), repr(ended.why)
    text = str(ended.why)
    assert "\n" not in text, text
    assert str(folder) in text, text
    assert REMEDIES[blow] in text, text
