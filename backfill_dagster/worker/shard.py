"""One shard run: leases, recovery, bounded fetching, commits, and one outcome for every DID that was tried.

The steps are those of `docs/architecture.md`. What one DID's answer means is `repo`'s business, which DIDs are in
flight `fetching`'s, how rows become durable `batch`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict

from backfill_dagster.errors import RefusedHostError
from backfill_dagster.ledger import ShardSummary
from backfill_dagster.model import Outcome, PlannedDid, RepoOutcome, Shard, Wanted, cut_detail
from backfill_dagster.net import check_endpoint
from backfill_dagster.plan import Plan
from backfill_dagster.progress import has_rewrites, live_rows, outcome_counts, pending_dids
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.selection import Selection
from backfill_dagster.standing import left_behind
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.batch import ShardBatches
from backfill_dagster.worker.brake import Brake, Stop
from backfill_dagster.worker.connection import open_fetcher
from backfill_dagster.worker.fetching import ShardFetching
from backfill_dagster.worker.leases import held_leases
from backfill_dagster.worker.recover import recover
from backfill_dagster.worker.result import RunNumbers, ShardResult
from backfill_dagster.worker.writer_thread import OnWriter, writer_thread

_log = logging.getLogger(__name__)

OnProgress = Callable[[RunNumbers], None]


async def run_shard(
    state: BackfillState,
    plan: Plan,
    selection: Selection,
    shard: Shard,
    *,
    run_id: str,
    on_progress: OnProgress = lambda numbers: None,
) -> ShardResult:
    """Fetch what is pending in a shard, commit it, and say how the shard stands.

    Args:
        state: the opened state of the backfill.
        plan: the plan as of now; its `refresh` decides what has to be tried again.
        selection: which records are wanted.
        shard: the shard; the plan has to know it.
        run_id: names the run in log, ledger and leases.
        on_progress: called after every DID, from the event loop's thread.

    Raises:
        LeaseHeldError: another run works on the shard or its host; names the owner.
        FencedError: another writer has taken the shard over meanwhile.
        StateError: the state can't be read or written.
    """
    started = state.effects.monotonic()
    planned = plan.dids(shard.key)
    wanted = Wanted(selection.scope, plan.refresh)
    numbers = RunNumbers()
    log = state.log(shard.key)
    at_least = state.whole_fold(shard.key).epoch + 1
    with writer_thread(shard.key) as on_writer:
        async with held_leases(state, shard.key, shard.host, run_id, at_least_epoch=at_least) as leases:

            def begin() -> ShardBatches:
                fold = log.seal(log.read(), epoch=leases.epoch, run_id=run_id)
                recover(state.store, state.ledger, fold, backfill=state.config.name, shard=shard.key)
                return ShardBatches(
                    state,
                    log,
                    fold,
                    epoch=leases.epoch,
                    run_id=run_id,
                    selection=selection,
                    wanted=wanted,
                    check_leases=leases.check,
                    numbers=numbers,
                )

            batches = await on_writer(begin)
            for did in left_behind(state, plan, planned, batches.fold, shard.key):
                await on_writer(batches.let_go, did)
            pending = pending_dids(planned, batches.fold, state.ledger.retry_marks(shard.key), wanted)
            numbers.dids_total = len(pending)
            _say("shard run begins", state, shard, run_id, epoch=leases.epoch, pending=len(pending))
            stop = await _work(state, pending, batches, numbers, on_writer, on_progress)
            numbers.seconds = state.effects.monotonic() - started
            result = _result(shard, planned, batches.fold, wanted, numbers, stop)
            await on_writer(_summarize, state, result, batches.fold.seq)
            _say("shard run ends", state, shard, run_id, stopped=result.stopped, left=result.left, **asdict(numbers))
            return result


def _say(message: str, state: BackfillState, shard: Shard, run_id: str, **fields: object) -> None:
    """One log line of a run, for machines."""
    named = {"backfill": state.config.name, "shard": shard.key, "run_id": run_id, **fields}
    _log.info(message, extra={"fields": named})


async def _work(
    state: BackfillState,
    pending: Sequence[PlannedDid],
    batches: ShardBatches,
    numbers: RunNumbers,
    on_writer: OnWriter,
    on_progress: OnProgress,
) -> Stop | None:
    stop = None
    try:
        if pending:
            stop = await _fetch(state, pending, batches, numbers, on_writer, on_progress)
    except asyncio.CancelledError:
        # Asked to stop: the batch in hand holds whole DIDs only, so it is kept; the rest stays pending.
        await on_writer(batches.commit)
        raise
    except BaseException:
        await on_writer(batches.discard)
        raise
    await on_writer(batches.commit)
    if has_rewrites(batches.fold):
        await on_writer(batches.rewrite)
    return stop


async def _fetch(
    state: BackfillState,
    pending: Sequence[PlannedDid],
    batches: ShardBatches,
    numbers: RunNumbers,
    on_writer: OnWriter,
    on_progress: OnProgress,
) -> Stop | None:
    brake = Brake(state.config.processing.quota, state.effects, numbers)
    by_endpoint: dict[str, list[PlannedDid]] = defaultdict(list)
    for one in pending:
        by_endpoint[one.pds_endpoint].append(one)
    # One host and port, but some documents may say http and some https: what most of them say comes first.
    for endpoint, dids in sorted(by_endpoint.items(), key=lambda item: -len(item[1])):
        try:
            check_endpoint(endpoint, state.config.processing.allow_private_hosts)
        except RefusedHostError as error:
            await on_writer(_book_refused, batches, dids, error)
            continue
        async with open_fetcher(state, endpoint, brake, numbers) as fetcher:
            fetching = ShardFetching(
                state.config, fetcher, batches, brake, numbers, on_writer=on_writer, on_progress=on_progress
            )
            stop = await fetching.run(dids)
        if stop is not None:
            return stop
    return None


def _book_refused(batches: ShardBatches, dids: Sequence[PlannedDid], error: RefusedHostError) -> None:
    for planned in dids:
        result = RepoOutcome(
            did=planned.did,
            outcome=Outcome.REFUSED_HOST,
            error_code=error.error_code,
            error_detail=cut_detail(str(error)),
        )
        batches.add_outcome(planned, result)


def _result(
    shard: Shard, planned: Sequence[PlannedDid], fold: Fold, wanted: Wanted, numbers: RunNumbers, stop: Stop | None
) -> ShardResult:
    return ShardResult(
        shard=shard.key,
        host=shard.host,
        dids=sum(not one.delisted for one in planned),
        outcomes=outcome_counts(planned, fold, wanted),
        rows=live_rows(fold),
        numbers=numbers,
        stopped=stop.reason if stop else None,
        host_down=stop.host_down if stop else False,
        retry_after_seconds=stop.retry_after_seconds if stop else None,
    )


def _summarize(state: BackfillState, result: ShardResult, seq: int) -> None:
    outcomes = {outcome.value: count for outcome, count in result.outcomes.items()}
    state.ledger.put_summary(result.shard, ShardSummary(outcomes=outcomes, rows=dict(result.rows), seq=seq))
