"""Who a process is, exactly enough to say from another one whether it is dead (Linux: /proc; elsewhere: unknown).

https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_DEAD_STATES = frozenset({"Z", "X", "x"})

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of one boot in one pid namespace; empty texts where the system doesn't say.

    The time namespace goes with the pid namespace: start times are told by the reader's.
    """

    pid: int
    boot_id: str
    pid_namespace: str
    pid_started: int

    def is_same_machine(self, other: ProcessIdentity) -> bool:
        """Whether the two can see each other's pids: same boot, same pid namespace, both known."""
        return (
            bool(self.boot_id and self.pid_namespace)
            and self.boot_id == other.boot_id
            and self.pid_namespace == other.pid_namespace
        )


def own_identity(proc: Path = PROC) -> ProcessIdentity:
    """This process."""
    pid = os.getpid()
    started = _stat(pid, proc)
    if started is None or _link(proc / "self") != str(pid):
        # No /proc, or that of another pid namespace (a container with its host's): the pids in it are other processes.
        return ProcessIdentity(pid=pid, boot_id="", pid_namespace="", pid_started=0)
    namespaces = [_link(proc / "self/ns" / kind) for kind in ("pid", "time")]
    return ProcessIdentity(
        pid=pid,
        boot_id=_read(proc / "sys/kernel/random/boot_id"),
        pid_namespace=" ".join(namespaces).strip() if namespaces[0] else "",
        pid_started=started[1],
    )


def process_exists(pid: int) -> bool:
    """Whether the kernel knows the pid, someone else's process included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_dead(
    other: ProcessIdentity,
    own: ProcessIdentity,
    proc: Path = PROC,
    exists: Callable[[int], bool] = process_exists,
) -> bool:
    """Whether `other` is certainly dead: gone, a zombie, or its pid belongs to a later process.

    False when it lives and when nothing can be said: another machine, no /proc, a process that /proc hides.
    """
    if not own.is_same_machine(other) or other.pid <= 0:
        return False
    found = _stat(other.pid, proc)
    if found is None:
        return not exists(other.pid)
    state, started = found
    return state in _DEAD_STATES or (other.pid_started != 0 and started != other.pid_started)


def _stat(pid: int, proc: Path) -> tuple[str, int] | None:
    """State letter and start time in clock ticks since boot; None when there is no such process."""
    text = _read(proc / str(pid) / "stat")
    # The second field is the program's name in parentheses and may hold anything, parentheses too.
    fields = text.rpartition(")")[2].split()
    return (fields[0], int(fields[19])) if len(fields) > 19 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
