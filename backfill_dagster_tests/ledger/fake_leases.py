"""A lease table in memory that can lose replies and fail, a clock that only sleep moves, a waiter that never waits."""

from __future__ import annotations

from collections.abc import Callable

from backfill_dagster.errors import StateError
from backfill_dagster.ledger import Lease, LeaseRecord
from backfill_dagster.ledger.process_identity import ProcessIdentity

HERE = ProcessIdentity(pid=10**9, boot_id="boot", pid_namespace="pid:[1]", pid_started=5)
"""This machine; no such process exists."""

ELSEWHERE = ProcessIdentity(pid=10**9, boot_id="", pid_namespace="", pid_started=0)
"""A machine that says nothing about itself: nobody can tell who is dead there."""

LEASE_SECONDS = 60.0


class FakeTable:
    """`LeaseTable` in a dict. `mode` of the next calls: "", "fails", "fails late" (set all the same), "lost reply"."""

    def __init__(self) -> None:
        self.records: dict[str, LeaseRecord] = {}
        self.mode = ""
        self.hurry_seconds = 0.0

    def read(self, name: str) -> LeaseRecord | None:
        if self.mode == "fails":
            raise StateError("the ledger is gone")
        return self.records.get(name)

    def compare_and_set(self, name: str, expected: LeaseRecord | None, new: LeaseRecord) -> bool:
        if self.mode == "fails":
            raise StateError("the ledger is gone")
        if self.records.get(name) != expected:
            return False
        self.records[name] = new
        if self.mode == "fails late":
            raise StateError("the reply got lost on the way")
        return self.mode != "lost reply"

    def hurried(self, seconds: float) -> FakeTable:
        self.hurry_seconds = seconds
        return self

    def close(self) -> None:
        self.records.clear()


class FakeClock:
    """Seconds that only `sleep` moves; `during` is called after every sleep with the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self.during: Callable[[float], None] = lambda _: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.sleeps.append(seconds)
        self.now += seconds
        self.during(self.now)


class StoppedWaiter:
    """The heartbeat thread ends at once: tests beat by hand."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []
        self.is_set = False

    def wait(self, timeout: float) -> bool:
        self.timeouts.append(timeout)
        return True

    def set(self) -> None:
        self.is_set = True


def take(
    table: FakeTable,
    clock: FakeClock,
    run: str,
    *,
    identity: ProcessIdentity = ELSEWHERE,
    lease_seconds: float = LEASE_SECONDS,
    at_least_epoch: int = 0,
    wait: bool = True,
) -> Lease:
    """Acquire `study/a~0000` for a run, without a real thread, clock or sleep."""
    return Lease.acquire(
        table,
        "study/a~0000",
        owner=f"run {run}, pid 1 on h",
        run_id=run,
        lease_seconds=lease_seconds,
        monotonic=clock,
        sleep=clock.sleep,
        at_least_epoch=at_least_epoch,
        wait=wait,
        stop=StoppedWaiter(),
        identity=identity,
        token=lambda: f"token of {run}",
    )
