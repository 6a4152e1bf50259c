"""One DID: ask its PDS for the repo, and turn every possible answer into an outcome or into checked records.

Retries, backpressure and the question "has it moved?" are answered here. Which DIDs are fetched, in what order and
when the host counts as dead is `shard`'s business; writing rows and committing is `batch`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.atproto.tid import tid_from_micros
from backfill_dagster.config import BackfillConfig
from backfill_dagster.effects import Effects
from backfill_dagster.errors import (
    AccountUnavailableError,
    BackfillError,
    NetworkError,
    PermanentError,
    RateLimitedError,
    RefusedHostError,
    ServerFaultError,
    TimedOutError,
    TooLargeError,
    TransientError,
)
from backfill_dagster.identity import Resolver
from backfill_dagster.model import Outcome, PlannedDid, RepoOutcome, cut_detail
from backfill_dagster.net import Body, HostLimiter, RetryPolicy, TotalLimiter, check_endpoint
from backfill_dagster.pds import LatestCommit, PdsClient
from backfill_dagster.worker.brake import Brake
from backfill_dagster.worker.result import RunNumbers

T = TypeVar("T")

RATE_LIMITED_TRIES_MAX = 20
"""429s that one DID sits through in one run before it is left pending; the limiter's pauses grow to 300 s."""

_HOST_LEVEL_STATUS = frozenset({502, 503, 504})

_ACCOUNT_OUTCOMES = {
    "RepoDeactivated": Outcome.DEACTIVATED,
    "RepoSuspended": Outcome.SUSPENDED,
    "RepoTakendown": Outcome.TAKEN_DOWN,
    "RepoNotFound": Outcome.NOT_FOUND,
}


@dataclass(frozen=True)
class Fetched:
    """A repo as it came from the wire, not yet looked into; close `body` when done.

    Attributes:
        planned: the DID, with the key that its signature has to match.
        body: the CAR.
        since: the `since` that was asked for, None for a full fetch.
        base: the last complete fetch that `since` is the rev of; None when it is a synthetic one, or none.
        attempts: requests it took.
        fetched_at: ISO 8601 UTC.
    """

    planned: PlannedDid
    body: Body
    since: str | None
    attempts: int
    fetched_at: str
    base: RepoOutcome | None = None


@dataclass(frozen=True)
class Missed:
    """A DID without a repo this time: its outcome with the evidence; `host_level` when the host itself seems dead."""

    planned: PlannedDid
    result: RepoOutcome
    host_level: bool = False


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A host's answer and the requests it took."""

    value: T
    attempts: int


class RepoFetcher:
    """Fetches the repos of one host's DIDs under its rate limit; no state but the counters."""

    def __init__(
        self,
        config: BackfillConfig,
        client: PdsClient,
        limiter: HostLimiter,
        total_limiter: TotalLimiter,
        resolver: Resolver,
        effects: Effects,
        numbers: RunNumbers,
        brake: Brake,
    ) -> None:
        self._client = client
        self._limiter = limiter
        self._total_limiter = total_limiter
        self._resolver = resolver
        self._effects = effects
        self._numbers = numbers
        self._brake = brake
        self._max_retries = config.processing.max_retries
        self._retries = RetryPolicy(config.processing.max_retries, effects)
        self._allow_private_hosts = config.processing.allow_private_hosts

    async def fetch(
        self, planned: PlannedDid, *, since: str | None = None, base: RepoOutcome | None = None
    ) -> Fetched | Missed:
        """Fetch one repo; every answer of a server becomes a value, only cancellation and defects are raised.

        Args:
            planned: the DID.
            since: only what is newer than this rev.
            base: the last complete fetch, if `since` is its rev.
        """
        answer = await self._ask(planned, lambda: self._client.get_repo(planned.did, since=since))
        if isinstance(answer, Missed):
            return answer
        self._numbers.bytes_fetched += answer.value.bytes_on_wire
        return Fetched(planned, answer.value, since, answer.attempts, self._effects.now_text(), base)

    async def latest_commit(self, planned: PlannedDid) -> LatestCommit | Missed:
        """The repo's newest commit, by the host's word."""
        answer = await self._ask(planned, lambda: self._client.get_latest_commit(planned.did))
        return answer if isinstance(answer, Missed) else answer.value

    async def host_answers(self, planned: PlannedDid) -> bool:
        """Whether the host answers a question that costs it nothing, whatever the answer is."""
        try:
            await self._attempt(lambda: self._client.get_repo_status(planned.did))
        except TransientError as error:
            return not _is_host_level(error)
        except PermanentError:
            return True
        return True

    async def _ask(self, planned: PlannedDid, call: Callable[[], Awaitable[T]]) -> Answer[T] | Missed:
        """One question to the host, with its retries; a 429 is waited out and costs no retry."""
        attempts = faults = throttled = 0
        while True:
            attempts += 1
            try:
                return Answer(await self._attempt(call), attempts)
            except RateLimitedError as error:
                throttled += 1
                self._numbers.rate_limited += 1
                if throttled >= RATE_LIMITED_TRIES_MAX or not self._brake.may_go_on():
                    return self._missed(planned, Outcome.PENDING, error, attempts, code="RateLimited")
            except TransientError as error:
                faults += 1
                if faults > self._max_retries or not self._brake.may_go_on():
                    return self._missed(planned, Outcome.HTTP_ERROR, error, attempts, host_level=_is_host_level(error))
                self._numbers.retries += 1
                await self._effects.sleep(self._retries.delay_seconds(faults - 1))
            except PermanentError as error:
                return await self._judge(planned, error, attempts)

    async def _attempt(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._total_limiter.wait()
        async with self._limiter.slot() as slot:
            self._numbers.requests += 1
            try:
                answer = await call()
            except RateLimitedError as error:
                slot.rate_limited(error.retry_after_seconds)
                raise
            except AccountUnavailableError as error:
                slot.succeeded(error.headers)
                raise
            slot.succeeded(answer.headers if isinstance(answer, Body) else None)
            return answer

    async def _judge(self, planned: PlannedDid, error: PermanentError, attempts: int) -> Missed:
        if isinstance(error, AccountUnavailableError):
            outcome = _ACCOUNT_OUTCOMES.get(error.error_code or "", Outcome.NOT_FOUND)
            return await self.recheck_identity(planned, outcome, error, attempts)
        if isinstance(error, TooLargeError):
            return self._missed(planned, Outcome.TOO_LARGE, error, attempts)
        if isinstance(error, RefusedHostError):
            return self._missed(planned, Outcome.REFUSED_HOST, error, attempts)
        return self._missed(planned, Outcome.HTTP_ERROR, error, attempts)

    async def recheck_identity(
        self, planned: PlannedDid, outcome: Outcome, error: BackfillError, attempts: int
    ) -> Missed:
        """Book `outcome`, unless the DID document, asked anew, says that the account lives elsewhere or nowhere.

        An account that moved is deactivated or gone at its old host, so the host's word alone proves nothing.
        """
        document = await self.fresh_document(planned, attempts)
        if isinstance(document, Missed):
            return document
        if self.lives_elsewhere(planned, document):
            return self.moved(planned, document, error, attempts)
        return self._missed(planned, outcome, error, attempts)

    def lives_elsewhere(self, planned: PlannedDid, document: DidDocument) -> bool:
        """Whether the document names another host than the plan. Documents write one origin in several ways."""
        try:
            return check_endpoint(document.pds_endpoint, self._allow_private_hosts).url != planned.pds_endpoint
        except RefusedHostError:
            return True  # the next plan books it as refused_host

    def moved(self, planned: PlannedDid, document: DidDocument, error: BackfillError, attempts: int) -> Missed:
        """The account lives at another host now, with the old host's answer as evidence."""
        missed = self._missed(planned, Outcome.MOVED, error, attempts, code="Moved")
        detail = cut_detail(f"the DID document now names {document.pds_endpoint}; the next plan gives it a shard there")
        return replace(missed, result=replace(missed.result, error_detail=detail))

    async def fresh_document(self, planned: PlannedDid, attempts: int) -> DidDocument | Missed:
        """The DID document as it is now, past the cache; a Missed when there is none."""
        try:
            return await self._resolver.resolve(planned.did, fresh=True)
        except RefusedHostError as error:
            return self._missed(planned, Outcome.REFUSED_HOST, error, attempts)
        except PermanentError as error:
            return self._missed(planned, Outcome.UNRESOLVABLE, error, attempts)
        except TransientError as error:
            # What the PDS said can't be judged while the directory is silent: not terminal, tried again.
            return self._missed(planned, Outcome.HTTP_ERROR, error, attempts, code="IdentityUnavailable")

    def _missed(
        self,
        planned: PlannedDid,
        outcome: Outcome,
        error: BackfillError,
        attempts: int,
        *,
        code: str | None = None,
        host_level: bool = False,
    ) -> Missed:
        result = RepoOutcome(
            did=planned.did,
            outcome=outcome,
            attempts=attempts,
            http_status=getattr(error, "http_status", None),
            error_code=code or getattr(error, "error_code", None) or type(error).__name__.removesuffix("Error"),
            error_detail=cut_detail(str(error)),
            error_headers=getattr(error, "headers", {}),
            error_body_sha256=getattr(error, "body_sha256", None),
        )
        return Missed(planned, result, host_level)


def _is_host_level(error: TransientError) -> bool:
    if isinstance(error, ServerFaultError):
        return error.http_status in _HOST_LEVEL_STATUS
    return isinstance(error, (NetworkError, TimedOutError))


def synthetic_since(config: BackfillConfig) -> str | None:
    """The TID of the range's start less the slack, when `fetch: auto` may ask for less than the whole repo.

    A record can't have been written before its rev, so everything with a later createdAt is in the partial CAR, but
    for createdAt that runs ahead of the clock: hence `since_slack_days`.
    """
    time_range = config.time_range
    if config.processing.fetch != "auto" or time_range is None or time_range.start_us is None:
        return None
    micros = time_range.start_us - config.processing.since_slack_days * 86_400_000_000
    return tid_from_micros(micros) if micros > 0 else None
