"""Is that owner dead? Against a made-up /proc and against real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backfill_dagster.ledger.process_identity import ProcessIdentity, is_dead, own_identity, process_exists

OWN = ProcessIdentity(pid=1, boot_id="b", pid_namespace="pid:[1]", pid_started=3)


def put_process(proc: Path, pid: int, *, name: str = "python", state: str = "S", started: int = 77) -> None:
    (proc / str(pid)).mkdir(parents=True)
    fields = [state, *map(str, range(4, 22)), str(started), "23"]
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


def other(pid: int = 7, started: int = 77) -> ProcessIdentity:
    return replace(OWN, pid=pid, pid_started=started)


@pytest.mark.parametrize("name", ["python", "a b) S 1 (x", ") Z 1"])
def test_a_living_process(tmp_path: Path, name: str) -> None:
    put_process(tmp_path, 7, name=name)
    assert is_dead(other(), OWN, tmp_path) is False


@pytest.mark.parametrize("state", ["T", "D", "R"])
def test_a_stopped_process_lives(tmp_path: Path, state: str) -> None:
    put_process(tmp_path, 7, state=state)
    assert is_dead(other(), OWN, tmp_path) is False


@pytest.mark.parametrize("state", ["Z", "X"])
def test_a_zombie_is_dead(tmp_path: Path, state: str) -> None:
    put_process(tmp_path, 7, state=state)
    assert is_dead(other(), OWN, tmp_path) is True


def test_a_pid_that_is_used_again(tmp_path: Path) -> None:
    put_process(tmp_path, 7, started=78)
    assert is_dead(other(started=77), OWN, tmp_path) is True
    assert is_dead(other(started=0), OWN, tmp_path) is False


@pytest.mark.parametrize("hidden", [True, False])
def test_a_process_that_proc_does_not_show(tmp_path: Path, hidden: bool) -> None:
    assert is_dead(other(), OWN, tmp_path, exists=lambda _: hidden) is not hidden


@pytest.mark.parametrize(
    "changes", [{"boot_id": "c"}, {"pid_namespace": "pid:[2]"}, {"boot_id": ""}, {"pid_namespace": ""}, {"pid": 0}]
)
def test_of_another_machine_nothing_is_known(tmp_path: Path, changes: dict[str, object]) -> None:
    assert is_dead(replace(other(), **changes), OWN, tmp_path, exists=lambda _: False) is False  # type: ignore[arg-type]


def test_two_processes_of_unknown_machines_are_not_neighbours(tmp_path: Path) -> None:
    unknown = replace(OWN, boot_id="", pid_namespace="")
    assert is_dead(unknown, unknown, tmp_path, exists=lambda _: False) is False


def test_a_system_without_proc(tmp_path: Path) -> None:
    assert own_identity(tmp_path / "none") == ProcessIdentity(os.getpid(), "", "", 0)


def put_self(proc: Path, pid: int, *namespaces: tuple[str, str]) -> None:
    (proc / "self").symlink_to(str(pid))
    (proc / str(pid) / "ns").mkdir(parents=True, exist_ok=True)
    for kind, name in namespaces:
        (proc / str(pid) / "ns" / kind).symlink_to(name)
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text("b\n")


@pytest.mark.parametrize(
    ("namespaces", "said"),
    [
        ([("pid", "pid:[1]"), ("time", "time:[2]")], "pid:[1] time:[2]"),
        ([("pid", "pid:[1]")], "pid:[1]"),
        ([("time", "time:[2]")], ""),
        ([], ""),
    ],
)
def test_who_one_is_oneself(tmp_path: Path, namespaces: list[tuple[str, str]], said: str) -> None:
    put_process(tmp_path, os.getpid(), started=78)
    put_self(tmp_path, os.getpid(), *namespaces)
    assert own_identity(tmp_path) == ProcessIdentity(os.getpid(), "b", said, 78)


def test_a_proc_of_another_pid_namespace_says_nothing(tmp_path: Path) -> None:
    """There one has another pid, and one's own pid is somebody else."""
    put_process(tmp_path, os.getpid(), started=78)
    put_process(tmp_path, os.getpid() + 1, started=79)
    put_self(tmp_path, os.getpid() + 1, ("pid", "pid:[1]"))
    assert own_identity(tmp_path) == ProcessIdentity(os.getpid(), "", "", 0)


def test_a_proc_that_does_not_show_oneself_says_nothing(tmp_path: Path) -> None:
    put_self(tmp_path, os.getpid(), ("pid", "pid:[1]"))
    assert own_identity(tmp_path) == ProcessIdentity(os.getpid(), "", "", 0)


def test_a_stat_that_is_cut_short(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (x) S 1")
    assert is_dead(other(), OWN, tmp_path, exists=lambda _: True) is False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_real_process_lives_then_is_a_zombie_then_is_gone() -> None:
    own = own_identity()
    assert own.boot_id
    assert own.pid_started > 0
    assert is_dead(own, own) is False
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = replace(own, pid=child.pid, pid_started=0)
    assert process_exists(child.pid) is True
    assert is_dead(identity, own) is False
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(identity, own) is True
    child.wait()
    child.stdin.close()  # type: ignore[union-attr]
    assert is_dead(identity, own) is True


def test_a_process_of_somebody_else_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError(pid, number)

    monkeypatch.setattr(os, "kill", refuse)
    assert process_exists(1) is True
