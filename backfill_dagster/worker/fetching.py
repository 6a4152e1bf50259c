"""The fetching side of a shard run: a bounded number of DIDs at a time, each to its outcome, until none is left.

Knows nothing of leases or of how a batch becomes durable; it hands repos and outcomes to the writer thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import BackfillError, InvalidRepoError, InvalidSignatureError
from backfill_dagster.model import HOST_DOWN, Outcome, PlannedDid, RepoOutcome, cut_detail
from backfill_dagster.records.delta import UnprovenError
from backfill_dagster.worker.batch import ShardBatches
from backfill_dagster.worker.body import NothingSinceError
from backfill_dagster.worker.brake import Brake, Stop
from backfill_dagster.worker.host_health import HostHealth
from backfill_dagster.worker.memory import Claim, MemoryBudget
from backfill_dagster.worker.repo import Fetched, Missed, RepoFetcher, synthetic_since
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster.worker.writer_thread import OnWriter

_log = logging.getLogger(__name__)

BaseOf = Callable[[str], RepoOutcome | None]
"""DID -> the outcome of the last fetch, if only what is newer has to be asked for."""


class ShardFetching:
    """Drives the DIDs of one shard through fetcher and batches."""

    def __init__(
        self,
        config: BackfillConfig,
        fetcher: RepoFetcher,
        batches: ShardBatches,
        brake: Brake,
        numbers: RunNumbers,
        *,
        bases: BaseOf,
        whole: Collection[str],
        on_writer: OnWriter,
        on_progress: Callable[[RunNumbers], None],
    ) -> None:
        self._config = config
        self._fetcher = fetcher
        self._batches = batches
        self._brake = brake
        self._numbers = numbers
        self._bases = bases
        self._whole = whole
        self._on_writer = on_writer
        self._on_progress = on_progress
        self._since = synthetic_since(config)
        self._health = HostHealth()
        self._memory = MemoryBudget(config.processing.memory_mib * 1024 * 1024)

    async def run(self, pending: Sequence[PlannedDid]) -> Stop | None:
        """Take every pending DID to an outcome, or stop early; returns why."""
        queue = iter(pending)
        width = min(self._config.processing.concurrent_requests, len(pending))
        workers = [asyncio.create_task(self._work(queue)) for _ in range(width)]
        try:
            await self._until_done_or_down(workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        await self._book_suspects()
        return self._brake.pulled

    async def _until_done_or_down(self, workers: list[asyncio.Task[None]]) -> None:
        """Wait for the workers; a defect in one ends all, a dead host leaves the others' DIDs pending."""
        waiting = set(workers)
        while waiting and not (self._brake.pulled and self._brake.pulled.host_down):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _work(self, queue: Iterator[PlannedDid]) -> None:
        for planned in queue:
            if not self._brake.may_go_on():
                return
            async with self._memory.admit() as claim:
                await self._book(await self._take(planned, claim))
            self._on_progress(self._numbers)

    async def _book(self, got: RepoOutcome | Missed) -> None:
        if isinstance(got, Missed) and got.host_level:
            self._health.failed(got)
            if self._health.is_down:
                said = got.result
                self._brake.give_up(f"the host stopped answering: {said.error_detail}", said.error_headers)
            return
        for suspect in self._health.answered():
            await self._on_writer(self._batches.add_outcome, suspect.planned, suspect.result)
        if isinstance(got, Missed):
            await self._on_writer(self._batches.add_outcome, got.planned, got.result)

    async def _book_suspects(self) -> None:
        suspects, host_is_down = self._health.verdict()
        # The last stubborn DIDs of a shard are no dead host: one cheap question tells.
        if self._health.is_doubtful and await self._fetcher.host_answers(suspects[0].planned):
            host_is_down = False
        for suspect in suspects:
            result = suspect.result
            if host_is_down:
                result = replace(result, outcome=Outcome.PENDING, error_code=HOST_DOWN)
                self._brake.give_up(f"the host does not answer: {result.error_detail}", result.error_headers)
            await self._on_writer(self._batches.add_outcome, suspect.planned, result)

    async def _take(self, planned: PlannedDid, claim: Claim) -> RepoOutcome | Missed:
        """Fetch a repo and decode it: what is newer than the last fetch, or than the time range's start, or all of it.

        An answer that doesn't prove enough is followed by the next question.
        """
        if planned.did in self._whole:
            return await self._take_once(planned, claim)
        base = self._bases(planned.did)
        questions: list[tuple[str | None, RepoOutcome | None]] = [(self._since, None)] if self._since else []
        if base is not None:
            questions.insert(0, (base.last_complete_rev, base))
        for since, of in questions:
            with suppress(UnprovenError):
                got = await self._take_once(planned, claim, since=since, base=of)
                if of is None or not _stumbles_over_since(got):
                    return got
        return await self._take_once(planned, claim)

    async def _take_once(
        self, planned: PlannedDid, claim: Claim, *, since: str | None = None, base: RepoOutcome | None = None
    ) -> RepoOutcome | Missed:
        fetched = await self._fetcher.fetch(planned, since=since, base=base)
        if isinstance(fetched, Missed):
            return fetched
        claim.is_really(len(fetched.body.data))
        try:
            decoded = await self._decode(fetched)
        except UnprovenError:
            fetched.body.close()
            raise
        # Not when cancelled: the writer thread may still be reading, and the body goes with its last reader.
        fetched.body.close()
        return decoded

    async def _decode(self, fetched: Fetched) -> RepoOutcome | Missed:
        """Check and write a repo; a signature that fails is judged against the account's key as it is now."""
        try:
            return await self._add(fetched, fetched.planned.signing_key)
        except NothingSinceError as nothing:
            return await self._confirm_nothing(fetched, nothing.root)
        except InvalidSignatureError as error:
            return await self._decode_with_fresh_key(fetched, error)
        except InvalidRepoError as error:
            return self._invalid(fetched, error)

    async def _add(self, fetched: Fetched, signing_key: str) -> RepoOutcome:
        # Shielded: a repo that the writer thread has begun is finished, whoever cancels the fetch.
        adding = asyncio.ensure_future(self._on_writer(self._batches.add_repo, fetched, signing_key))
        try:
            return await asyncio.shield(adding)
        except asyncio.CancelledError:
            adding.add_done_callback(_log_failure)
            raise

    async def _decode_with_fresh_key(self, fetched: Fetched, error: InvalidSignatureError) -> RepoOutcome | Missed:
        document = await self._fetcher.fresh_document(fetched.planned, fetched.attempts)
        if isinstance(document, Missed):
            return document
        if self._fetcher.lives_elsewhere(fetched.planned, document):
            return self._fetcher.moved(fetched.planned, document, error, fetched.attempts)
        if document.signing_key == fetched.planned.signing_key:
            return self._invalid(fetched, error)
        try:
            return await self._add(fetched, document.signing_key)
        except InvalidRepoError as again:
            return self._invalid(fetched, again)

    async def _confirm_nothing(self, fetched: Fetched, root: str) -> RepoOutcome | Missed:
        """A header-only CAR proves nothing by itself: the latest commit has to be that root, and old enough."""
        latest = await self._fetcher.latest_commit(fetched.planned)
        if isinstance(latest, Missed):
            return latest
        if latest.cid != root or (fetched.since is not None and latest.rev > fetched.since):
            raise UnprovenError("the CAR has no blocks, and its root is not an old commit")
        result = RepoOutcome(
            did=fetched.planned.did,
            outcome=Outcome.COMPLETE,
            rev=latest.rev,
            commit_cid=latest.cid,
            last_complete_rev=latest.rev,
            repo_bytes=len(fetched.body.data),
            attempts=fetched.attempts,
            fetched_at=fetched.fetched_at,
        )
        return await self._on_writer(self._batches.add_outcome, fetched.planned, result)

    def _invalid(self, fetched: Fetched, error: BackfillError) -> Missed:
        if fetched.base is not None:
            raise UnprovenError(f"what is said to be newer is no good: {error}") from error
        code = getattr(error, "error_code", None) or type(error).__name__.removesuffix("Error")
        result = RepoOutcome(
            did=fetched.planned.did,
            outcome=Outcome.INVALID_REPO,
            repo_bytes=len(fetched.body.data),
            attempts=fetched.attempts,
            http_status=fetched.body.status,
            error_code=code,
            error_detail=cut_detail(str(error)),
            fetched_at=fetched.fetched_at,
        )
        return Missed(fetched.planned, result)


def _stumbles_over_since(got: RepoOutcome | Missed) -> bool:
    """Whether a host that answers failed on this very question; it may know how to answer the plain one."""
    return isinstance(got, Missed) and got.result.outcome is Outcome.HTTP_ERROR and not got.host_level


def _log_failure(adding: asyncio.Future[RepoOutcome]) -> None:
    """Nobody waits for the repo any more; its DID stays pending."""
    if not adding.cancelled() and (error := adding.exception()) is not None:
        _log.info("a repo that was being written when the run stopped was dropped: %r", error)
