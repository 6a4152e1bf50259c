"""One shard run: leases, recovery, bounded fetching, commits, and one outcome for every DID that was tried.

The steps are those of `docs/architecture.md`. What one DID's answer means is `repo`'s business, which DIDs are in
flight `fetching`'s, how rows become durable `batch`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from backfill_dagster.errors import RefusedHostError
from backfill_dagster.model import Outcome, PlannedDid, RepoOutcome, Shard, Wanted, cut_detail
from backfill_dagster.net import check_endpoint
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.progress import live_rows, outcome_counts, pending_dids
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.purges import PurgeLog, Purges
from backfill_dagster.records.selection import Selection
from backfill_dagster.standing import left_behind, overtaken
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.batch import ShardBatches
from backfill_dagster.worker.brake import Brake, Stop
from backfill_dagster.worker.connection import open_fetcher
from backfill_dagster.worker.delta import delta_base, dids_in_another_form
from backfill_dagster.worker.fetching import BaseOf, ShardFetching
from backfill_dagster.worker.result import RunNumbers, ShardResult
from backfill_dagster.worker.rewriting import carry_out_purges
from backfill_dagster.worker.session import close_shard, open_shard
from backfill_dagster.worker.writer import ShardWriter
from backfill_dagster.worker.writer_thread import OnWriter

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
    only_tidy: bool = False,
) -> ShardResult:
    """Fetch what is pending in a shard, commit it, and say how the shard stands.

    Args:
        state: the opened state of the backfill.
        plan: the plan as of now; its `refresh` decides what has to be tried again.
        selection: which records are wanted.
        shard: the shard; the plan has to know it.
        run_id: names the run in log, ledger and leases.
        on_progress: called after every DID, from the event loop's thread.
        only_tidy: fetch nothing, only finish, sweep and let go.

    Raises:
        LeaseHeldError: another run works on the shard or its host; names the owner.
        FencedError: another writer has taken the shard over meanwhile.
        StateError: the state can't be read or written.
    """
    started = state.effects.monotonic()
    planned = plan.dids(shard.key)
    wanted = Wanted(selection.scope, plan.refresh)
    numbers = RunNumbers()
    at_least = state.whole_fold(shard.key).epoch + 1
    async with open_shard(state, shard.key, wanted, run_id, at_least_epoch=at_least) as (writer, on_writer):
        purges = await on_writer(_carry_out_purges, state, writer, planned)
        batches = ShardBatches(writer, selection, purges, numbers)
        for did, outcome in _rows_of_the_past(state, writer.fold, plan, planned, shard.key).items():
            await on_writer(batches.let_go, did, outcome)
        await on_writer(batches.commit)  # what is kept of a DID goes by the log
        marks = state.ledger.retry_marks(shard.key)
        pending = [] if only_tidy else pending_dids(planned, writer.fold, marks, wanted)
        numbers.dids_total = len(pending)
        _say("shard run begins", state, shard, run_id, epoch=writer.epoch, pending=len(pending))
        bases = await on_writer(_bases, state, writer.fold, pending, marks, wanted)
        # Whoever reopens what is there doesn't trust it: a mark asks for the repo again, whole.
        work = _Work(state, batches, numbers, on_writer, on_progress, bases.get, marks)
        stop = await work.run(pending)
        await on_writer(_carry_out_purges, state, writer, planned)
        await on_writer(close_shard, writer, planned, plan.generation)
        numbers.seconds = state.effects.monotonic() - started
        result = _result(shard, planned, writer.fold, wanted, numbers, stop)
        _say("shard run ends", state, shard, run_id, stopped=result.stopped, left=result.left, **asdict(numbers))
        return result


def _rows_of_the_past(
    state: BackfillState, fold: Fold, plan: Plan, planned: Sequence[PlannedDid], key: str
) -> dict[str, Outcome]:
    """DIDs whose rows here are the past, by the plan as it is now, and what is to be said of them.

    The run's own plan may be of hours ago: by that one an account that a newer plan has brought here belongs elsewhere.
    """
    newest = PlanStore(state.store).read()
    if newest.generation != plan.generation:
        planned = newest.dids(key)
    gone = left_behind(state, newest, planned, fold, key)
    back = overtaken(state, planned, fold, key)
    return dict.fromkeys(gone, Outcome.MOVED) | dict.fromkeys(back, Outcome.PENDING)


def _carry_out_purges(state: BackfillState, writer: ShardWriter, planned: Sequence[PlannedDid]) -> Purges:
    purges = Purges.of(PurgeLog(state.store).read())
    carry_out_purges(writer, purges, [one.did for one in planned])
    return purges


def _bases(
    state: BackfillState, fold: Fold, pending: Sequence[PlannedDid], marks: Mapping[str, int], wanted: Wanted
) -> dict[str, RepoOutcome]:
    """The pending DIDs of which only what is newer has to be asked for, with the outcome of their last fetch."""
    found = ((one.did, delta_base(state.config, fold, one.did, wanted)) for one in pending if one.did not in marks)
    bases = {did: base for did, base in found if base is not None}
    others = dids_in_another_form(state.store, fold, state.config.records.raw) if bases else set()
    return {did: base for did, base in bases.items() if did not in others}


def _say(message: str, state: BackfillState, shard: Shard, run_id: str, **fields: object) -> None:
    """One log line of a run, for machines."""
    named = {"backfill": state.config.name, "shard": shard.key, "run_id": run_id, **fields}
    _log.info(message, extra={"fields": named})


@dataclass(frozen=True)
class _Work:
    """Fetching and committing, between what a run begins and ends with."""

    state: BackfillState
    batches: ShardBatches
    numbers: RunNumbers
    on_writer: OnWriter
    on_progress: OnProgress
    bases: BaseOf
    whole: Collection[str]

    async def run(self, pending: Sequence[PlannedDid]) -> Stop | None:
        """Take the pending DIDs to their outcomes, the last batch committed; returns why it ended early."""
        stop = None
        try:
            if pending:
                stop = await self._fetch(pending)
        except asyncio.CancelledError:
            # Asked to stop: the batch in hand holds whole DIDs only, so it is kept; the rest stays pending.
            await self.on_writer(self.batches.commit)
            raise
        except BaseException:
            await self.on_writer(self.batches.discard)
            raise
        await self.on_writer(self.batches.commit)
        return stop

    async def _fetch(self, pending: Sequence[PlannedDid]) -> Stop | None:
        config = self.state.config
        brake = Brake(config.processing.quota, self.state.effects, self.numbers)
        by_endpoint: dict[str, list[PlannedDid]] = defaultdict(list)
        for one in pending:
            by_endpoint[one.pds_endpoint].append(one)
        # One host and port, but some documents may say http and some https: what most of them say comes first.
        for endpoint, dids in sorted(by_endpoint.items(), key=lambda item: -len(item[1])):
            try:
                check_endpoint(endpoint, config.processing.allow_private_hosts)
            except RefusedHostError as error:
                await self.on_writer(_book_refused, self.batches, dids, error)
                continue
            async with open_fetcher(self.state, endpoint, brake, self.numbers) as fetcher:
                fetching = ShardFetching(
                    config,
                    fetcher,
                    self.batches,
                    brake,
                    self.numbers,
                    bases=self.bases,
                    whole=self.whole,
                    on_writer=self.on_writer,
                    on_progress=self.on_progress,
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
