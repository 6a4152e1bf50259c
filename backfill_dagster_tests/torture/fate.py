"""One counter that every durable call passes, and what strikes at a chosen one of them.

The calls themselves are in `fated.py`, what a power cut leaves of the disk in `power.py`.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from backfill_dagster.errors import StateError
from backfill_dagster_tests.worker.mortal import KilledError


class Blow(StrEnum):
    """What happens at the chosen call."""

    DEATH = "death"
    """The process is gone before the call."""
    TORN_WRITE = "torn_write"
    """Half of the bytes reach the file, then the process is gone."""
    POWER_CUT = "power_cut"
    """Gone, and with it whatever was not flushed: names and content."""
    POWER_CUT_NAMES_KEPT = "power_cut_names_kept"
    """Gone, with the content that was not flushed; all names stay. File systems are free to do either."""
    FULL = "full"
    """The disk has no space for this call."""
    FULL_ON = "full_on"
    """The disk has no space from this call on."""
    FAULT = "fault"
    """The disk reports a fault at this call."""
    FAULT_ON = "fault_on"
    """The disk reports a fault from this call on."""

    @property
    def is_power_cut(self) -> bool:
        return self in (Blow.POWER_CUT, Blow.POWER_CUT_NAMES_KEPT)

    @property
    def error_number(self) -> int | None:
        """The errno of a disk that refuses; None when the process dies."""
        if self in (Blow.FULL, Blow.FULL_ON):
            return errno.ENOSPC
        return errno.EIO if self in (Blow.FAULT, Blow.FAULT_ON) else None

    @property
    def stays(self) -> bool:
        return self in (Blow.FULL_ON, Blow.FAULT_ON)


@dataclass(frozen=True)
class Call:
    """One durable call: what it does, and to what."""

    kind: str
    where: str


class Fate:
    """Counts the durable calls of one life, which may be several commands, and strikes at number `at` (from 1).

    Attributes:
        calls: the calls so far, the struck one included.
        struck: whether the blow has fallen.
        is_over: whether the process is gone; every further call says so, so that nothing is written by the dead.
    """

    def __init__(self, blow: Blow | None = None, at: int = 0) -> None:
        self.blow = blow
        self.at = at
        self.calls: list[Call] = []
        self.struck = False
        self.is_over = False
        self.quiet = threading.Lock()
        """Held around heartbeats, so that whoever needs none under way can wait for that."""
        self._lock = threading.Lock()

    def meet(self, kind: str, where: object, half: Callable[[], object] = lambda: None) -> None:
        """Count a call that is about to be made; `half` does half of it.

        Raises:
            KilledError: the process dies here, or is dead.
            OSError: the disk refuses.
        """
        if threading.current_thread().name.startswith("lease "):
            self._meet_heartbeat()
            return
        with self._lock:
            if self.is_over:
                raise KilledError
            self.calls.append(Call(kind, str(where)))
            number = len(self.calls)
        if self.blow is None or number < self.at or (number > self.at and not self.blow.stays):
            return
        self.struck = True
        self.strike(self.blow, half)

    def strike(self, blow: Blow, half: Callable[[], object]) -> None:
        """The blow itself."""
        if blow is Blow.TORN_WRITE or blow.error_number is not None:
            half()
        if blow.error_number is not None:
            raise OSError(blow.error_number, os.strerror(blow.error_number))
        self.is_over = True
        raise KilledError

    def _meet_heartbeat(self) -> None:
        """Heartbeats come at any time, so they don't count; a dead process has none."""
        if self.is_over:
            raise StateError("the process is gone")
