"""Taking, keeping and losing a lease: a record whose counter beats from a thread of its own.

Leases keep order and politeness; that nothing is lost or doubled rests on the shard log alone. The table that holds
the records is behind `LeaseTable`; when one may be taken is in `lease_watch.py`.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from types import TracebackType
from typing import Protocol

from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.ledger.in_time import in_time
from backfill_dagster.ledger.lease_record import LeaseRecord, LeaseTable
from backfill_dagster.ledger.lease_watch import held_error, takeable
from backfill_dagster.ledger.process_identity import ProcessIdentity, own_identity

BEATS_PER_LEASE = 6
"""Heartbeats in `lease_seconds`: an owner loses its lease after several lost beats, never after one."""

_HASTE = 4
"""A beat that wasn't confirmed is tried again after that part of the interval."""

_RELEASE_SECONDS = 3.0
"""A run that has ended waits so long at most for its lease to be let go."""


class Waiter(Protocol):
    """What the heartbeat waits on; `threading.Event` is one."""

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds; True at once when it is set."""
        ...

    def set(self) -> None:
        """End all waiting."""
        ...


class Lease:
    """A lease in hand; made by `acquire`, let go by `release` (or the end of a `with`)."""

    def __init__(
        self,
        table: LeaseTable,
        record: LeaseRecord,
        *,
        beats: LeaseTable,
        confirmed_at: float,
        monotonic: Callable[[], float],
        stop: Waiter,
    ) -> None:
        self._table = table
        self._beats = beats
        self._record = record
        self._confirmed_at = confirmed_at
        self._monotonic = monotonic
        self._stop = stop
        self._lost = ""
        self._released = False
        self._beating = threading.Lock()  # neither `check` nor `release` ever waits for a beat
        self._letting_go = threading.Lock()
        self._thread = threading.Thread(target=self._beat_on, name=f"lease {record.name}", daemon=True)

    @classmethod
    def acquire(
        cls,
        table: LeaseTable,
        name: str,
        *,
        owner: str,
        run_id: str,
        lease_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        at_least_epoch: int = 0,
        wait: bool = True,
        stop: Waiter | None = None,
        identity: ProcessIdentity | None = None,
        token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> Lease:
        """Take a lease and start its heartbeat. Blocks up to the owner's `lease_seconds`; for a thread, not a loop.

        A lease that was never held, was released, or whose owner is a dead process of this machine is taken at once.
        Otherwise the beat is watched on this process's own monotonic clock until it moves (held) or has stood still
        for the longer of the two `lease_seconds` (taken); time that this process didn't look at it doesn't count.

        Args:
            table: where leases are.
            name: `<backfill>/<shard>`, or a PDS host.
            owner: who asks, for people.
            run_id: the run that asks.
            lease_seconds: how long the own beat may stand still.
            monotonic: seconds of a clock that never jumps.
            sleep: waits between two looks; an exception from it ends the attempt.
            at_least_epoch: lowest epoch that is good, should the table be younger than the log.
            wait: False never waits: whatever can't be taken at once is held.
            stop: what the heartbeat waits on.
            identity: this process.
            token: makes a text that never comes twice.

        Raises:
            LeaseHeldError: a living owner holds it; the text names it.
            StateError: the table refuses.
        """
        own = identity or own_identity()
        before = takeable(
            table, name, own=own, lease_seconds=lease_seconds, monotonic=monotonic, sleep=sleep, wait=wait
        )
        epoch = max((before.epoch if before else 0) + 1, at_least_epoch)
        record = LeaseRecord(
            name=name,
            epoch=epoch,
            owner_text=owner,
            run_id=run_id,
            token=token(),
            beat=0,
            lease_seconds=lease_seconds,
            **asdict(own),
        )
        beats = table.hurried(lease_seconds / BEATS_PER_LEASE / 2)
        asked_at = monotonic()
        if not _set(table, before, record):
            raise held_error(name, table.read(name))
        stop = stop or threading.Event()
        lease = cls(table, record, beats=beats, confirmed_at=asked_at, monotonic=monotonic, stop=stop)
        lease._thread.start()
        return lease

    @property
    def name(self) -> str:
        """What is leased."""
        return self._record.name

    @property
    def epoch(self) -> int:
        """Higher than that of every holder before."""
        return self._record.epoch

    def check(self) -> None:
        """Pass while the lease is surely held.

        Raises:
            FencedError: it was lost or released, or no heartbeat was confirmed for half of `lease_seconds`: a
                challenger may be about to take it.
        """
        if self._lost:
            raise FencedError(f"the lease on {self.name} was lost ({self._lost}); start again when that run is done")
        if self._released:
            raise FencedError(f"the lease on {self.name} was released; start again")
        silent_seconds = self._monotonic() - self._confirmed_at
        if silent_seconds >= self._record.lease_seconds / 2:
            raise FencedError(
                f"the lease on {self.name} could not be confirmed for {silent_seconds:.0f} s; see why the ledger "
                "doesn't answer, then start again"
            )

    def beat(self) -> bool:
        """One heartbeat: raise the counter if the lease is still one's own. The thread calls this.

        Returns:
            False when the table didn't answer in time: `check` counts the silence, the next beat tries again.
        """
        with self._beating:
            if self._lost or self._released:
                return True
            asked_at = self._monotonic()
            following = replace(self._record, beat=self._record.beat + 1)
            try:
                found = following
                if not self._beats.compare_and_set(self.name, self._record, following):
                    found = self._confirmed(self._beats.read(self.name))
            except StateError:
                return False
            self._record, self._confirmed_at = found, asked_at
            return True

    def _confirmed(self, found: LeaseRecord | None) -> LeaseRecord:
        """The record in the table when it is still one's own: an earlier beat's reply may have got lost."""
        if found is not None and found.token == self._record.token:
            return found
        self._lost = f"to {found.owner_text}" if found else "its record is gone"
        self._stop.set()
        return self._record

    def release(self) -> bool:
        """Stop the heartbeat and let the lease go, if it is still one's own. Calling it again does nothing.

        Waits three seconds at most; letting go goes on in a thread then, while there is a process.

        Returns:
            Whether the table said so. If not, nothing is wrong: a successor sees the process dead or the beat still.
        """
        self._stop.set()
        if self._lost or not self._letting_go.acquire(blocking=False):
            return False
        self._released = True
        try:
            return bool(in_time(self._let_go, _RELEASE_SECONDS, name=f"release {self.name}"))
        except StateError:
            return False  # this is often called while another error is on its way, which matters more

    def _let_go(self) -> bool:
        """Whatever beat is still under way finds another record than it expects, or is found here."""
        if _set(self._table, self._record, replace(self._record, released=True)):
            return True
        found = self._table.read(self.name)  # one's own still, if the reply to a beat got lost
        return (
            found is not None
            and found.token == self._record.token
            and _set(self._table, found, replace(found, released=True))
        )

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _beat_on(self) -> None:
        interval_seconds = wait_seconds = self._record.lease_seconds / BEATS_PER_LEASE
        while not self._stop.wait(wait_seconds):
            wait_seconds = interval_seconds if self.beat() else interval_seconds / _HASTE


def _set(table: LeaseTable, expected: LeaseRecord | None, new: LeaseRecord) -> bool:
    """Compare and set; a refusal that follows a lost reply of one's own success is a success."""
    return table.compare_and_set(new.name, expected, new) or table.read(new.name) == new
