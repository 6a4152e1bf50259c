"""A writer stands still before a durable call, another one takes over and finishes, the first one wakes up.

It has to stop by itself, commit nothing, and delete nothing of the other's.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from backfill_dagster.errors import FencedError, LeaseHeldError
from backfill_dagster_tests.torture.fate import Call, Fate
from backfill_dagster_tests.torture.life import CONFIG, Life
from backfill_dagster_tests.torture.picture import finished_picture
from backfill_dagster_tests.torture.scenes import Scene, is_entry, run
from backfill_dagster_tests.torture.zombie import SAID, STOPPED_AT, go_on, stopped_run

LOST = re.compile(
    r"backfill: ("
    r"the lease on \S+ was lost \(to run \w+ of study, pid \d+ on [^)]*\); start again when that run is done"
    r"|the lease on \S+ could not be confirmed for \d+ s; .*"
    r"|localhost_\d+~0000: entry \d+ of its log is another run's, which has taken the shard over; .*"
    r"|localhost_\d+~0000: the log is at epoch \d+, this run has \d+: another run has taken the shard over; .*"
    r")"
)

AT_ONCE = 6
TAKE_OVERS_MAX = 10

_picture_lock = threading.Lock()


@dataclass(frozen=True)
class Window:
    """Calls of a `backfill run` that a zombie may be stopped at.

    Attributes:
        base: the folder that the run begins in.
        calls: all durable calls of the run.
        numbers: the chosen ones, one of each kind.
        scene: what has to be there in the end.
    """

    base: Path
    calls: Sequence[Call]
    numbers: Sequence[int]
    scene: Scene


def one_of_each_kind(calls: Sequence[Call], first: int, last: int) -> list[int]:
    """The middle one of the calls of each kind, from number `first` to `last`."""
    by_kind: dict[str, list[int]] = {}
    for number in range(first, last + 1):
        by_kind.setdefault(calls[number - 1].kind, []).append(number)
    return sorted(same[len(same) // 2] for same in by_kind.values())


@pytest.fixture(scope="module")
def windows(scenes: Mapping[str, Scene], ground: Path) -> Mapping[str, Window]:
    first, again, broken = scenes["first_run"], scenes["retry"], scenes["recovery"]
    marked = ground / "marked"
    shutil.copytree(again.base, marked)
    before = Life(marked, Fate())
    assert before.run([command for command in again.commands if command is not run]).why is None
    calls = again.calls[len(before.fate.calls) :]
    entries = {name: [n for n, call in enumerate(some, 1) if is_entry(call)] for name, some in
               (("first", first.calls), ("again", calls), ("broken", broken.calls))}
    leases = [n for n, call in enumerate(broken.calls, 1) if call.kind == "lease"]
    parts = [n for n, call in enumerate(broken.calls, 1) if call.kind == "create" and "/staging/" in call.where]
    return {
        "commit": Window(first.base, first.calls, one_of_each_kind(first.calls, entries["first"][0] + 1, entries["first"][-1]), first),
        "rewrite": Window(marked, calls, one_of_each_kind(calls, entries["again"][1] + 1, len(calls)), again),
        "recovery": Window(broken.base, broken.calls, one_of_each_kind(broken.calls, leases[0], parts[0]), broken),
    }


@pytest.mark.live
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["commit", "rewrite", "recovery"])
def test_a_writer_that_wakes_up_too_late_stops_by_itself(windows: Mapping[str, Window], ground: Path, name: str) -> None:
    window = windows[name]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(window.numbers, pool.map(lambda n: haunted(window, n, ground / f"{name}-{n}"), window.numbers), strict=True))
    assert {f"{n} {window.calls[n - 1].kind} {window.calls[n - 1].where}": why for n, why in found.items() if why} == {}


def haunted(window: Window, number: int, folder: Path) -> str:
    """What went wrong with a zombie at this call; nothing, if all is well."""
    try:
        haunt(window, number, folder)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    return ""


def haunt(window: Window, number: int, folder: Path) -> None:
    shutil.copytree(window.base, folder)
    set_lease_seconds(folder / CONFIG, 1)
    with stopped_run(folder, number) as zombie:
        kind = (folder / STOPPED_AT).read_text().split()[0]
        assert kind == window.calls[number - 1].kind, f"it was stopped at {kind}"
        take_over(folder)
        before = files_of(folder)
        code = go_on(zombie)
    assert files_of(folder) == before, "the zombie has changed what is there"
    said = (folder / SAID).read_text().splitlines()
    if number <= max(n for n, call in enumerate(window.calls, 1) if is_entry(call)):
        assert code == 1, f"exit {code}: {said}"
        assert len(said) == 1, said
        assert LOST.fullmatch(said[0]), said
    else:  # all of its work was done and stands
        assert code in (0, 1), f"exit {code}: {said}"
    with Life(folder, Fate()).opened() as state, _picture_lock:
        other = finished_picture(state).differences(window.scene.end)
    assert not other, other


def set_lease_seconds(path: Path, seconds: int) -> None:
    content = yaml.safe_load(path.read_text())
    content["backfill"]["processing"]["lease_seconds"] = seconds
    path.write_text(yaml.safe_dump(content))


def take_over(folder: Path) -> None:
    """Run to the end, in this process; with so short leases it may take one itself for lost, and starts again."""
    for _ in range(TAKE_OVERS_MAX):
        ended = Life(folder, Fate()).run([run])
        if ended.why is None:
            return
        assert isinstance(ended.why, (FencedError, LeaseHeldError)), repr(ended.why)
    raise AssertionError("nobody could take over")


def files_of(folder: Path) -> dict[str, str]:
    """Path -> digest of everything that counts: the log, the plan, the parts."""
    root = folder / "data" / "study"
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("log", "plan", "records", "quarantine", "snapshots")
        for path in root.glob(f"{name}/**/*")
        if path.is_file()
    }
