"""The leases of a shard run, its host's and its shard's, taken together and let go together.

Order and politeness only: that nothing is lost or doubled rests on the log.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from backfill_dagster.errors import InterruptedRunError
from backfill_dagster.ledger import Lease, LeaseTable
from backfill_dagster.state import BackfillState


@dataclass(frozen=True)
class HeldLeases:
    """All leases of a running shard run; `epoch` is the shard lease's. A host is leased in one or two tables."""

    shard: Lease
    hosts: tuple[Lease, ...]

    @property
    def epoch(self) -> int:
        """The writer's epoch: higher than that of every writer before."""
        return self.shard.epoch

    def check(self) -> None:
        """Raise FencedError when one of them was lost or couldn't be confirmed for too long."""
        self.shard.check()
        for lease in self.hosts:
            lease.check()


class _Taking:
    """One lease on its way, in a thread: whoever stops waiting for it lets it go, come or not come yet."""

    def __init__(self, acquire: Callable[..., Lease]) -> None:
        self._acquire = acquire
        self._unwanted = threading.Event()
        self._lock = threading.Lock()
        self._lease: Lease | None = None

    def take(self) -> Lease:
        """Acquire the lease; InterruptedRunError when it isn't wanted any more."""
        lease = self._acquire(sleep=self._sleep)
        with self._lock:
            self._lease = lease
            if not self._unwanted.is_set():
                return lease
        lease.release()
        raise _stopped()

    def let_go(self) -> None:
        """Release the lease if it is there, end the waiting for it if not. Calling it again does nothing."""
        with self._lock:
            self._unwanted.set()
        if self._lease is not None:
            self._lease.release()

    def _sleep(self, seconds: float) -> None:
        if self._unwanted.wait(seconds):
            raise _stopped()


def _stopped() -> InterruptedRunError:
    return InterruptedRunError("the run was stopped while it waited for a lease; start it again")


@asynccontextmanager
async def held_leases(
    state: BackfillState, shard: str, host: str | None, run_id: str, *, at_least_epoch: int
) -> AsyncIterator[HeldLeases]:
    """Take the host's leases, then the shard's; all are released at the end, however it comes.

    Args:
        state: the opened state.
        shard: partition key or the reserved shard.
        host: host part of the key; None for the reserved shard, which asks no PDS.
        run_id: names the run for whoever meets the lease.
        at_least_epoch: the log's epoch plus one, should the lease table be younger than the log.

    Raises:
        LeaseHeldError: a living owner holds one of them; the text names it.
    """
    owner = f"run {run_id} of {state.config.name}, pid {os.getpid()} on {socket.gethostname()}"

    async def take(table: LeaseTable, name: str, epoch: int) -> Lease:
        taking = _Taking(
            partial(
                Lease.acquire,
                table,
                name,
                owner=owner,
                run_id=run_id,
                lease_seconds=state.config.processing.lease_seconds,
                at_least_epoch=epoch,
            )
        )
        stack.callback(taking.let_go)
        return await asyncio.to_thread(taking.take)

    async with AsyncExitStack() as stack:
        host_leases = () if host is None else tuple([await take(table, host, 0) for table in state.host_leases])
        shard_lease = await take(state.ledger.leases, state.lease_name(shard), at_least_epoch)
        yield HeldLeases(shard_lease, host_leases)
