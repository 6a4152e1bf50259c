"""A writer stands still before a durable call, another one takes over and finishes, the first one wakes up.

It has to stop by itself, commit nothing, and delete nothing of the other's.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from backfill_dagster.errors import FencedError, LeaseHeldError
from backfill_dagster_tests.torture import TORTURE
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
ZOMBIES_MIN = 9
TAKE_OVERS_MAX = 10

_picture_lock = threading.Lock()


@dataclass(frozen=True)
class Window:
    """Calls of a `backfill run` that a zombie is stopped at.

    Attributes:
        base: the folder that the run begins in.
        calls: all durable calls of the run.
        first: number of the first call to stop at.
        last: number of the last one.
        scene: what has to be there in the end.
    """

    base: Path
    calls: Sequence[Call]
    first: int
    last: int
    scene: Scene

    def numbers(self) -> Sequence[int]:
        """All of them, or one of each kind: the last that has to do with the log or with parts, if there is one."""
        window = range(self.first, self.last + 1)
        if TORTURE:
            return window
        weighty = sorted(window, key=lambda number: bool(WEIGHTY.search(self.calls[number - 1].where)))
        return sorted({self.calls[number - 1].kind: number for number in weighty}.values())

    @property
    def last_entry(self) -> int:
        return numbers_of(self.calls, is_entry)[-1]


WEIGHTY = re.compile("/(?:log|staging|records|quarantine)/")


def numbers_of(calls: Sequence[Call], is_meant: Callable[[Call], bool]) -> list[int]:
    return [number for number, call in enumerate(calls, 1) if is_meant(call)]


@pytest.fixture(scope="module")
def windows(scenes: Mapping[str, Scene], ground: Path) -> Mapping[str, Window]:
    """From the seal to the last entry, from the batch's entry to the end, and from the lease to the first new part."""
    first, again, broken = scenes["first_run"], scenes["retry"], scenes["recovery"]
    seal, *_, last = numbers_of(first.calls, is_entry)
    marked, calls = after_marking(again, ground / "marked")
    batch = numbers_of(calls, is_entry)[1]
    lease = numbers_of(broken.calls, lambda call: call.kind == "lease")[0]
    part = numbers_of(broken.calls, lambda call: call.kind == "create" and "/staging/" in call.where)[0]
    return {
        "commit": Window(first.base, first.calls, seal + 1, last, first),
        "rewrite": Window(marked, calls, batch + 1, len(calls), again),
        "recovery": Window(broken.base, broken.calls, lease, part, broken),
    }


def after_marking(scene: Scene, folder: Path, life: type[Life] = Life) -> tuple[Path, Sequence[Call]]:
    """The scene without the commands before its run: where that begins, and its calls."""
    life.begin(scene.base, folder)
    before = life(folder, life.fate_of())
    assert before.run([command for command in scene.commands if command is not run]).why is None
    return folder, scene.calls[len(before.fate.calls) :]


@pytest.mark.live
@pytest.mark.timeout(900 if TORTURE else 120)
@pytest.mark.parametrize("name", ["commit", "rewrite", "recovery"])
def test_a_writer_that_wakes_up_too_late_stops_by_itself(
    windows: Mapping[str, Window], ground: Path, name: str
) -> None:
    window = windows[name]
    numbers = window.numbers()
    assert len(numbers) >= ZOMBIES_MIN
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda number: haunted(window, number, ground / f"{name}-{number}"), numbers)
        wrong = {f"{number} {window.calls[number - 1]}": why for number, why in zip(numbers, found, strict=True) if why}
    assert wrong == {}


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
        code = go_on(zombie, folder)
    changed = sorted(path for path, _ in files_of(folder).items() ^ before.items())
    assert not changed, f"the zombie has changed {changed}"
    assert_it_stopped(code, (folder / SAID).read_text(), window.calls[number - 1], number > window.last_entry)
    with Life(folder, Fate()).opened() as state, _picture_lock:
        other = finished_picture(state).differences(window.scene.end)
    assert not other, other


def assert_it_stopped(code: int, said: str, call: Call, is_done: bool) -> None:
    """One line that names what was lost; unless all of its work was done, or it had not even begun."""
    if code == 0:
        assert is_done, f"exit 0: {said}"
    elif call.kind == "lease" and not is_done:
        assert (code, "is held by run" in said) == (3, True), f"exit {code}: {said}"
    else:
        assert code == 1, f"exit {code}: {said}"
        assert LOST.fullmatch(said.removesuffix("\n")), said


def set_lease_seconds(path: Path, seconds: int) -> None:
    content = yaml.safe_load(path.read_text())
    content["backfill"]["processing"]["lease_seconds"] = seconds
    path.write_text(yaml.safe_dump(content))


def take_over(folder: Path, life: type[Life] = Life) -> None:
    """Run to the end, in this process; with so short leases it may take one itself for lost, and starts again."""
    for _ in range(TAKE_OVERS_MAX):
        ended = life(folder, life.fate_of()).run([run])
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
