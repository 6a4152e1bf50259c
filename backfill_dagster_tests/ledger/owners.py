"""Real processes that hold or want a lease and do as they are told; their wall clocks may be wrong.

Used with SIGKILL, SIGSTOP and SIGCONT: what happens to the lease then is in the tests.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from backfill_dagster.errors import BackfillError
from backfill_dagster.ledger import Lease, LeaseRecord, LeaseTable, SqliteLedger

SPAWN = multiprocessing.get_context("spawn")
NAME = "study/a~0000"
WAIT_SECONDS = 60
"""Against hanging only."""

HOUR = 3600.0
RIGHT: tuple[float, ...] = (0.0,)
JUMPING = (0.0, HOUR, -HOUR)
"""Seconds by which the wall clock is wrong, look by look, over and over."""


def table_of(path: Path) -> LeaseTable:
    return SqliteLedger(path, "study").leases


def jump(offsets: Iterable[float]) -> None:
    """Make this process's wall clock wrong."""
    now, wrong = time.time, itertools.cycle(offsets)
    time.time = lambda: now() + next(wrong)
    time.time_ns = lambda: int(time.time() * 1e9)


def take(path: Path, run: str, lease_seconds: float, *, wait: bool = True) -> Lease:
    owner = f"run {run}, pid {os.getpid()}"
    return Lease.acquire(table_of(path), NAME, owner=owner, run_id=run, lease_seconds=lease_seconds, wait=wait)


def _own(path: Path, lease_seconds: float, offsets: tuple[float, ...], told: Connection) -> None:
    jump(offsets)
    lease = take(path, "first", lease_seconds)
    told.send("took it")
    while (command := told.recv()) != "end":
        try:
            if command == "check":
                lease.check()
            told.send(str(lease.release()) if command == "release" else "")
        except BackfillError as error:
            told.send(f"{type(error).__name__}: {error}")


class Owner:
    """A process that has taken the lease and keeps its heart beating."""

    def __init__(self, path: Path, *, lease_seconds: float, offsets: tuple[float, ...] = RIGHT) -> None:
        self._path = path
        self._lease_seconds = lease_seconds
        self._tell, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_own, args=(path, lease_seconds, offsets, theirs), daemon=True)
        self.process.start()
        theirs.close()
        assert self._hear() == "took it"

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def ask(self, command: str) -> str:
        """Have it check or release its lease: what came of it."""
        self._tell.send(command)
        return self._hear()

    def kill(self) -> None:
        """Kill it with -9. It stays a zombie until `process.join`."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def stop(self) -> None:
        """Stop it where it holds no lock of the file: after that would nobody be able to write, whatever leases say."""
        for _ in range(100):
            os.kill(self.pid, signal.SIGSTOP)
            _wait_for_state(self.pid, "T")
            if self._is_writable():
                return
            self.wake()
            time.sleep(0.01)
        raise AssertionError("it always holds the file's lock")

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _is_writable(self) -> bool:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True

    def _hear(self) -> str:
        assert self._tell.poll(WAIT_SECONDS), "the owner says nothing"
        return str(self._tell.recv())


def _wait_for_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def owner(path: Path, *, lease_seconds: float, offsets: tuple[float, ...] = RIGHT) -> Iterator[Owner]:
    """An owner; whatever has become of it, it is gone at the end."""
    made = Owner(path, lease_seconds=lease_seconds, offsets=offsets)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.join(WAIT_SECONDS)


def _challenge(
    path: Path, run: str, lease_seconds: float, offsets: tuple[float, ...], start: Barrier, told: Connection
) -> None:
    jump(offsets)
    start.wait(WAIT_SECONDS)
    began = time.monotonic()
    try:
        lease = take(path, run, lease_seconds)
    except BackfillError as error:
        told.send((time.monotonic() - began, f"{type(error).__name__}: {error}"))
        return
    told.send((time.monotonic() - began, ""))
    told.recv()  # hold it until everybody has been heard
    lease.release()


def challenge(
    path: Path, runs: Iterable[str], *, lease_seconds: float, offsets: tuple[float, ...] = RIGHT
) -> dict[str, tuple[float, str]]:
    """Processes that ask for the lease at the same moment: run -> (seconds it took, why it didn't get it or "")."""
    names = list(runs)
    start = SPAWN.Barrier(len(names))
    pipes = {run: SPAWN.Pipe() for run in names}
    challengers = [
        SPAWN.Process(target=_challenge, args=(path, run, lease_seconds, offsets, start, theirs), daemon=True)
        for run, (_, theirs) in pipes.items()
    ]
    for challenger in challengers:
        challenger.start()
    said = {run: tell.recv() for run, (tell, _) in pipes.items() if tell.poll(WAIT_SECONDS)}
    for run in said:
        pipes[run][0].send("end")
    for challenger in challengers:
        challenger.join(WAIT_SECONDS)
    assert list(said) == names
    return said


def record_of(path: Path) -> LeaseRecord:
    record = table_of(path).read(NAME)
    assert record is not None
    return record
