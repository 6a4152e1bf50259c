"""Containers, in each of which the run is pid 1: a living lease is never taken at once, a stalled one is in time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from backfill_dagster.errors import LeaseHeldError
from backfill_dagster.ledger.process_identity import ProcessIdentity, own_identity
from backfill_dagster_tests.ledger.fake_leases import LEASE_SECONDS, FakeClock, FakeTable
from backfill_dagster_tests.ledger.fake_leases import take as take_made_up
from backfill_dagster_tests.ledger.owners import record_of, take
from backfill_dagster_tests.requirements import need

CONTAINER = ProcessIdentity(pid=1, boot_id="boot", pid_namespace="pid:[4026532177] time:[1]", pid_started=700)
"""A run that is pid 1 in a container."""

OTHERS = {
    "another container of the same boot": replace(CONTAINER, pid_namespace="pid:[4026532178] time:[1]"),
    "another boot, the same namespace number": replace(CONTAINER, boot_id="another boot"),
    "another time namespace": replace(CONTAINER, pid_namespace="pid:[4026532177] time:[2]"),
    "an unknown boot": replace(CONTAINER, boot_id=""),
    "an unknown namespace": replace(CONTAINER, pid_namespace=""),
    "nothing known": ProcessIdentity(pid=1, boot_id="", pid_namespace="", pid_started=0),
}


@pytest.fixture(params=OTHERS.values(), ids=OTHERS.keys())
def owner(request: pytest.FixtureRequest) -> ProcessIdentity:
    """Who holds the lease: its pid and start time are no process of this machine."""
    identity: ProcessIdentity = replace(request.param, pid_started=701)
    return identity


@pytest.mark.parametrize("challenger", [CONTAINER, OTHERS["nothing known"]], ids=["knows itself", "knows nothing"])
class TestMadeUp:
    """Identities as /proc of other containers and machines would say them."""

    def test_a_beating_owner_keeps_it(self, owner: ProcessIdentity, challenger: ProcessIdentity) -> None:
        table, clock = FakeTable(), FakeClock()
        lease = take_made_up(table, clock, "one", identity=owner)
        clock.during = lambda now: lease.beat() if now >= 1010 else None
        with pytest.raises(LeaseHeldError, match="held by run one"):
            take_made_up(table, clock, "two", identity=challenger, wait=False)
        assert clock.sleeps == []
        with pytest.raises(LeaseHeldError, match="held by run one"):
            take_made_up(table, clock, "two", identity=challenger)
        assert clock.now == 1010
        lease.check()

    def test_a_stalled_owner_loses_it_after_lease_seconds(
        self, owner: ProcessIdentity, challenger: ProcessIdentity
    ) -> None:
        table, clock = FakeTable(), FakeClock()
        take_made_up(table, clock, "one", identity=owner)
        assert take_made_up(table, clock, "two", identity=challenger).epoch == 2
        assert clock.now == 1000 + LEASE_SECONDS


HOLD = """
import sys
from pathlib import Path
from backfill_dagster_tests.ledger.owners import take
lease = take(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), wait=sys.argv[4] == "wait")
print("took it at epoch", lease.epoch, flush=True)
sys.stdin.readline()
"""
PLAIN: tuple[str, ...] = ()
OWN_PROC = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
HOSTS_PROC = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
OWN_TIME = ("unshare", "--user", "--map-root-user", "--time", "--boottime", "1000", "--fork", "--kill-child")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tried = subprocess.run([*OWN_PROC, "true"], capture_output=True, timeout=30, check=False)
    need(tried.returncode == 0, "processes may not make pid namespaces here (unshare --user --pid)")
    return tmp_path / "ledger.sqlite"


@contextmanager
def contained(
    container: tuple[str, ...], path: Path, run: str, lease_seconds: float, *, wait: bool = True
) -> Iterator[subprocess.Popen[str]]:
    """A process in a container of its own that wants the lease, and holds it if it gets it."""
    command = [*container, sys.executable, "-c", HOLD, str(path), run, str(lease_seconds), "wait" if wait else ""]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def heard(process: subprocess.Popen[str]) -> str:
    """What it says when it has got the lease, or the last line of why it hasn't."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    return line or process.communicate(timeout=60)[1].strip().splitlines()[-1]


@pytest.mark.live
@pytest.mark.parametrize("second", [PLAIN, OWN_PROC, HOSTS_PROC], ids=["host", "container", "container, host's /proc"])
@pytest.mark.parametrize(
    "first", [OWN_PROC, HOSTS_PROC, OWN_TIME], ids=["container", "container, host's /proc", "own time"]
)
def test_a_lease_held_in_a_container(path: Path, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    with contained(first, path, "first", 3600) as owner:
        assert heard(owner) == "took it at epoch 1"
        with contained(second, path, "second", 3600, wait=False) as challenger:
            assert " is held by run first, pid " in heard(challenger)
        assert (record_of(path).run_id, record_of(path).released) == ("first", False)


@pytest.mark.live
def test_two_containers_in_which_the_run_is_pid_1(path: Path) -> None:
    with contained(OWN_PROC, path, "first", 3) as first:
        assert heard(first) == "took it at epoch 1"
        before = record_of(path)
        with contained(OWN_PROC, path, "second", 3) as second:
            assert " is held by run first, pid 1" in heard(second)
        first.kill()
        first.wait(60)
        with pytest.raises(LeaseHeldError, match="held by run first"):
            take(path, "third", 3, wait=False)
        with contained(OWN_PROC, path, "fourth", 1) as fourth:
            assert heard(fourth) == "took it at epoch 2"
            after = record_of(path)
    assert (before.pid, after.pid) == (1, 1)
    assert before.boot_id == after.boot_id == own_identity().boot_id
    assert before.pid_namespace != after.pid_namespace


@pytest.mark.live
def test_a_container_with_its_hosts_proc_knows_nobody(path: Path) -> None:
    with contained(HOSTS_PROC, path, "first", 3600) as owner:
        assert heard(owner) == "took it at epoch 1"
        record = record_of(path)
        assert (record.pid, record.boot_id, record.pid_namespace, record.pid_started) == (1, "", "", 0)
