"""What a table of leases holds and promises. How a lease is taken, kept and lost is in `lease.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A lease as it stands in the table.

    Attributes:
        name: what is leased: `<backfill>/<shard>`, or a PDS host.
        epoch: grows by at least one with every holder.
        owner_text: the holder for people: `run <id> of <backfill>, pid 123 on <hostname>`.
        run_id: the holder's run.
        token: unique per holder, so that one knows one's own record after a lost reply.
        beat: a counter that the holder raises; no clock of one machine is ever compared with another's.
        lease_seconds: how long the beat has to stand still before the lease may be taken.
        pid: the holder's process.
        boot_id: its machine's boot; empty when unknown.
        pid_namespace: its pid namespace; empty when unknown.
        pid_started: start time of the process in clock ticks since boot, 0 when unknown: pids are used again.
        released: the holder has let it go.
    """

    name: str
    epoch: int
    owner_text: str
    run_id: str
    token: str
    beat: int
    lease_seconds: float
    pid: int
    boot_id: str = ""
    pid_namespace: str = ""
    pid_started: int = 0
    released: bool = False


class LeaseTable(Protocol):
    """Records by name with an atomic compare-and-set, for any thread. `StateError` when the storage refuses."""

    def read(self, name: str) -> LeaseRecord | None:
        """The record; None when the name was never leased."""
        ...

    def compare_and_set(self, name: str, expected: LeaseRecord | None, new: LeaseRecord) -> bool:
        """Write `new` if the record is exactly `expected` (None: there is none).

        Returns:
            False when it isn't.

        Raises:
            ValueError: `new` carries another name.
        """
        ...

    def hurried(self, seconds: float) -> LeaseTable:
        """The same records for calls that are of no use later: each gives up when a wait takes longer than that.

        A storage on this machine, whose waits end by themselves, may give itself.
        """
        ...

    def holders(self) -> list[LeaseRecord]:
        """Every record that isn't released, by name; whether its holder still lives is another question."""
        ...

    def close(self) -> None:
        """Close the storage."""
        ...
