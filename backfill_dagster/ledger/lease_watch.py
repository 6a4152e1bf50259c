"""When a lease may be taken: nobody has it, its owner is dead, or its beat stands still for long enough."""

from __future__ import annotations

from collections.abc import Callable

from backfill_dagster.errors import LeaseHeldError
from backfill_dagster.ledger.lease_record import LeaseRecord, LeaseTable
from backfill_dagster.ledger.process_identity import ProcessIdentity, is_dead

_LOOKS_PER_LEASE = 24
"""How often a challenger looks in `lease_seconds`, so that it meets a living owner after a beat or so."""


def takeable(
    table: LeaseTable,
    name: str,
    *,
    own: ProcessIdentity,
    lease_seconds: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], object],
    wait: bool,
) -> LeaseRecord | None:
    """The record as it may be replaced; waits until that is sure.

    Args:
        table: where leases are.
        name: what is leased.
        own: the challenger's process.
        lease_seconds: the challenger's.
        monotonic: seconds of a clock that never jumps.
        sleep: waits between two looks.
        wait: False: whatever can't be taken at once is held.

    Raises:
        LeaseHeldError: a living owner holds it.
    """
    first = record = table.read(name)
    watched_seconds = 0.0
    while record is not None and not record.released and not is_dead(_process_of(record), own):
        patience_seconds = max(lease_seconds, record.lease_seconds)
        if not wait or record != first:
            raise held_error(name, record)
        left_seconds = patience_seconds - watched_seconds
        if left_seconds <= 0:
            break
        look_seconds = min(left_seconds, patience_seconds / _LOOKS_PER_LEASE)
        slept_at = monotonic()
        sleep(look_seconds)
        record = table.read(name)
        # A look that took longer was a stall of one's own, or of the table: nobody has watched the owner meanwhile, and
        # what stopped the challenger may have stopped the owner too.
        watched_seconds += min(look_seconds, monotonic() - slept_at)
    return record


def _process_of(record: LeaseRecord) -> ProcessIdentity:
    return ProcessIdentity(
        pid=record.pid,
        boot_id=record.boot_id,
        pid_namespace=record.pid_namespace,
        pid_started=record.pid_started,
    )


def held_error(name: str, record: LeaseRecord | None) -> LeaseHeldError:
    """What to say to whoever can't have it; `record` is its owner's, if that is known."""
    owner = record.owner_text if record else "another run"
    return LeaseHeldError(f"{name} is held by {owner}; wait for it to end, or stop it, and start again")
