"""Real processes: one winner of put-if-absent; kill -9 at every system call leaves a whole object or none."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.synchronize import Barrier
from pathlib import Path

from backfill_dagster.store import LocalStore
from backfill_dagster_tests.store.disks import RecordingDisk

SPAWN = multiprocessing.get_context("spawn")
PROCESSES = 4
ROUNDS = 50


def _race(root: str, name: str, start: Barrier) -> None:
    store = LocalStore(Path(root))
    won = []
    for number in range(ROUNDS):
        start.wait(30)
        if store.put_if_absent(f"log/{number:08d}.json", name.encode()):
            won.append(str(number))
    store.put(f"won/{name}", " ".join(won).encode())


def test_put_if_absent_has_one_winner_among_processes(tmp_path: Path) -> None:
    start = SPAWN.Barrier(PROCESSES)
    racers = [SPAWN.Process(target=_race, args=(str(tmp_path), f"racer{n}", start)) for n in range(PROCESSES)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    store = LocalStore(tmp_path)
    claims = {
        int(number): f"racer{n}" for n in range(PROCESSES) for number in store.get(f"won/racer{n}").decode().split()
    }
    total = sum(len(store.get(f"won/racer{n}").split()) for n in range(PROCESSES))
    assert total == ROUNDS
    assert claims == {number: store.get(f"log/{number:08d}.json").decode() for number in range(ROUNDS)}
    assert list((tmp_path / ".tmp").iterdir()) == []


class KillingDisk(RecordingDisk):
    """Kills its process before the nth call."""

    def __init__(self, root: Path, at: int) -> None:
        super().__init__(root)
        self.at = at

    def _note(self, operation: str, path: Path) -> None:
        super()._note(operation, path)
        if len(self.calls) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def _write_all(root: str, at: int) -> None:
    store = LocalStore(Path(root), disk=KillingDisk(Path(root), at), unique=lambda: "u")
    with store.stage("r/1") as file:
        file.write(b"rows")
    store.put_if_absent("log/1", b"entry")
    store.publish(["r/1"])


def _count_calls(root: Path) -> int:
    disk = RecordingDisk(root)
    store = LocalStore(root, disk=disk, unique=lambda: "u")
    with store.stage("r/1") as file:
        file.write(b"rows")
    store.put_if_absent("log/1", b"entry")
    store.publish(["r/1"])
    return len(disk.calls)


def test_kill_at_each_system_call_keeps_the_order_of_things(tmp_path: Path) -> None:
    calls = _count_calls(tmp_path / "count")
    assert calls > 15
    fork = multiprocessing.get_context("fork")
    committed = []
    for at in range(1, calls + 1):
        root = tmp_path / str(at)
        process = fork.Process(target=_write_all, args=(str(root), at))
        process.start()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
        store = LocalStore(root)
        if store.exists("log/1"):
            committed.append(at)
            assert store.get("log/1") == b"entry"
            assert Path(store.find("r/1")).read_bytes() == b"rows"
            store.publish(["r/1"])
            assert store.get("r/1") == b"rows"
        else:
            assert store.exists("r/1") is False
    assert committed == list(range(committed[0], calls + 1))
    assert 1 < len(committed) < calls
