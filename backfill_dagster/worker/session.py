"""A shard taken in hand: leases, seal, recovery, what a predecessor or a purge left to do; let go at the end.

Every command that writes to a shard goes through here: runs, compaction, purges, repair.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from backfill_dagster.errors import StateError
from backfill_dagster.ledger import Settled
from backfill_dagster.model import UNROUTABLE_SHARD, PlannedDid, Shard, Wanted
from backfill_dagster.progress import live_rows, outcome_counts, pending_dids
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.leases import held_leases
from backfill_dagster.worker.recover import recover
from backfill_dagster.worker.rewriting import take_out_superseded
from backfill_dagster.worker.writer import ShardWriter
from backfill_dagster.worker.writer_thread import OnWriter, writer_thread

ReadLog = Callable[[ShardLog], Fold]
Recover = Callable[..., None]


@asynccontextmanager
async def open_shard(
    state: BackfillState,
    key: str,
    wanted: Wanted,
    run_id: str,
    *,
    at_least_epoch: int,
    read: ReadLog = ShardLog.read,
    recover: Recover = recover,
) -> AsyncIterator[tuple[ShardWriter, OnWriter]]:
    """The shard's writer, sealed and recovered, and the thread to use it on; leases are let go at the end.

    Args:
        state: the opened state.
        key: partition key, or the reserved shard.
        wanted: scope and refresh that new outcomes answer to.
        run_id: names the run in log and leases.
        at_least_epoch: the log's epoch plus one, should the lease table be younger than the log.
        read: how the log is read under the leases.
        recover: makes files and ledger agree with the sealed log; arguments as of `recover.recover`.

    Raises:
        LeaseHeldError: another run works on the shard or its host; names the owner.
        FencedError: another writer has taken the shard over meanwhile.
        StateError: the state can't be read or written, or live parts are missing.
    """
    log = state.log(key)
    host = None if key == UNROUTABLE_SHARD else Shard.parse(key).host
    with writer_thread(key) as on_writer:
        async with held_leases(state, key, host, run_id, at_least_epoch=at_least_epoch) as leases:

            def begin() -> ShardWriter:
                fold = log.seal(read(log), epoch=leases.epoch, run_id=run_id)
                recover(state.store, state.ledger, fold, backfill=state.config.name, shard=key)
                return ShardWriter(
                    state, log, fold, epoch=leases.epoch, run_id=run_id, wanted=wanted, check_leases=leases.check
                )

            try:
                yield await on_writer(begin), on_writer
            except StateError:
                leases.check()  # what a successor has replaced looks like damage to whoever has lost the shard
                raise


def close_shard(writer: ShardWriter, planned: Sequence[PlannedDid], generation: int) -> None:
    """The last of every command that went through: no superseded row stays, and the summary says how the shard stands.

    Args:
        writer: of the shard.
        planned: what the plan gives the shard.
        generation: of that plan.
    """
    take_out_superseded(writer)
    fold, wanted = writer.fold, writer.wanted
    # Marks ask for more, but they are a few rows of their own: whoever wants to know asks for them too.
    settled = None if pending_dids(planned, fold, {}, wanted) else Settled(wanted, generation)
    writer.summarize(outcome_counts(planned, fold, wanted), live_rows(fold), settled)
