"""One PDS host's read-only XRPC methods: a DID goes in; a CAR, a status or an error that names the outcome comes out.

Pace, retries and what an error means for a DID are the worker's; what is inside a CAR is `atproto`'s.
Source: https://atproto.com/specs/sync and the lexicons com.atproto.sync.*
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backfill_dagster.atproto.cid import cid_bytes
from backfill_dagster.atproto.tid import is_tid
from backfill_dagster.net import Body, HttpSession, Origin, Timeouts, get
from backfill_dagster.net.answers import json_object, server_fault
from backfill_dagster.net.fetch import SPOOL_OVER_BYTES, OnAnswer
from backfill_dagster.pds.refusals import refusal

CAR_CONTENT_TYPE = "application/vnd.ipld.car"
JSON_MAX_BYTES = 1024 * 1024
DEFAULT_MAX_REPO_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RepoStatus:
    """What a host says of an account.

    Attributes:
        active: whether the repo is served.
        status: why not: takendown, suspended, deactivated, deleted, desynchronized, throttled, or what else it says.
        rev: newest rev, a TID; None when the host doesn't say.
    """

    active: bool
    status: str | None
    rev: str | None


@dataclass(frozen=True, slots=True)
class LatestCommit:
    """The newest commit by the host's word: CID (text) and rev (TID)."""

    cid: str
    rev: str


class PdsClient:
    """One PDS host.

    Args:
        session: an open session.
        origin: of the host, judged by `net.check_endpoint`.
        max_repo_bytes: bound of a CAR.
        clock: seconds since the epoch, to read what a rate limit says.
        timeouts: instead of the session's.
        spool_over_bytes: larger CARs are mapped temporary files.

    All methods raise:
        AccountUnavailableError: `error_code` is RepoNotFound, RepoDeactivated, RepoSuspended or RepoTakendown.
        RateLimitedError: 429, with how long to wait if the host says so.
        ServerFaultError: 5xx, a redirect, a status or an XRPC error that isn't known (its name is in the text), or an
            answer of another type than asked for.
        NetworkError, TimedOutError: no whole answer.
        TooLargeError: over its bound.
        RefusedHostError: the host's name leads to a private network.
    """

    def __init__(
        self,
        session: HttpSession,
        origin: Origin,
        *,
        max_repo_bytes: int = DEFAULT_MAX_REPO_BYTES,
        clock: Callable[[], float],
        timeouts: Timeouts | None = None,
        spool_over_bytes: int = SPOOL_OVER_BYTES,
    ) -> None:
        self.origin = origin
        self._session = session
        self._max_repo_bytes = max_repo_bytes
        self._clock = clock
        self._timeouts = timeouts
        self._spool_over_bytes = spool_over_bytes

    async def get_repo(self, did: str, since: str | None = None, *, on_answer: OnAnswer | None = None) -> Body:
        """The repo as a CAR, unread; close it when done.

        Args:
            did: whose.
            since: a rev; hosts that know it leave out what is not newer.
            on_answer: called with status and headers before the body is read.
        """
        params = {"did": did} if since is None else {"did": did, "since": since}
        body = await self._get("com.atproto.sync.getRepo", params, self._max_repo_bytes, on_answer)
        if body.content_type != CAR_CONTENT_TYPE:
            with body:
                raise server_fault(body, f"the answer is {body.content_type[:80] or 'of no type'!r}, not a CAR")
        return body

    async def get_repo_status(self, did: str) -> RepoStatus:
        """Whether the host serves the account, and why not."""
        with await self._get("com.atproto.sync.getRepoStatus", {"did": did}) as body:
            data = json_object(body)
            active, status, rev = data.get("active"), data.get("status"), data.get("rev")
            if not isinstance(active, bool) or data.get("did", did) != did:
                raise server_fault(body, f"the answer isn't the status of {did}")
            return RepoStatus(
                active,
                status[:64] if isinstance(status, str) else None,
                rev if isinstance(rev, str) and is_tid(rev) else None,
            )

    async def get_latest_commit(self, did: str) -> LatestCommit:
        """The newest commit's CID and rev."""
        with await self._get("com.atproto.sync.getLatestCommit", {"did": did}) as body:
            data = json_object(body)
            cid, rev = data.get("cid"), data.get("rev")
            if not isinstance(cid, str) or not isinstance(rev, str) or not is_tid(rev):
                raise server_fault(body, "the answer has no cid and rev")
            try:
                cid_bytes(cid)
            except ValueError as error:
                raise server_fault(body, str(error)) from error
            return LatestCommit(cid, rev)

    async def _get(
        self, method: str, params: dict[str, str], max_bytes: int = JSON_MAX_BYTES, on_answer: OnAnswer | None = None
    ) -> Body:
        body = await get(
            self._session,
            f"{self.origin.url}/xrpc/{method}",
            params=params,
            max_bytes=max_bytes,
            timeouts=self._timeouts,
            spool_over_bytes=self._spool_over_bytes,
            on_answer=on_answer,
        )
        if body.status == 200:
            return body
        with body:
            raise refusal(body, self._clock())
