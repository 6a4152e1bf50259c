"""Handle -> DID, by asking a service that knows how (`com.atproto.identity.resolveHandle`).

Whether the DID's document names the handle back isn't checked: the DID is what gets backfilled.
Source: https://docs.bsky.app/docs/api/com-atproto-identity-resolve-handle
"""

from __future__ import annotations

from backfill_dagster.atproto.did import is_did
from backfill_dagster.atproto.handle import is_handle
from backfill_dagster.effects import Effects
from backfill_dagster.errors import NotFoundError
from backfill_dagster.identity.service_url import service_url
from backfill_dagster.net import HostLimiter, HttpSession, RetryPolicy, get
from backfill_dagster.net.answers import (
    is_rate_limit,
    json_object,
    rate_limited,
    server_fault,
    unexpected_status,
    xrpc_error,
)

ANSWER_MAX_BYTES = 64 * 1024
_NO_SUCH_HANDLE = ("InvalidRequest", "HandleNotFound")


class HandleResolver:
    """Asks the service at `identity.handle_resolver`."""

    def __init__(
        self, session: HttpSession, url: str, limiter: HostLimiter, retries: RetryPolicy, effects: Effects
    ) -> None:
        """UsageError when `url` isn't an http(s) origin."""
        self._session = session
        self._url = service_url(url, "identity.handle_resolver")
        self._limiter = limiter
        self._retries = retries
        self._effects = effects

    async def resolve_handle(self, handle: str) -> str:
        """The DID that a handle stands for.

        Raises:
            NotFoundError: not a handle (`error_code` InvalidHandle), or the service says that it resolves to nothing
                (HandleNotFound).
            TransientError: the service is down or makes no sense, after the retries.
        """
        if not is_handle(handle):
            raise NotFoundError(f"{handle[:100]!r} is not a handle", error_code="InvalidHandle")
        return await self._retries.run(lambda: self._ask(handle.lower()))

    async def _ask(self, handle: str) -> str:
        async with self._limiter.slot() as slot:
            url = f"{self._url}/xrpc/com.atproto.identity.resolveHandle"
            with await get(self._session, url, params={"handle": handle}, max_bytes=ANSWER_MAX_BYTES) as body:
                if is_rate_limit(body):
                    limited = rate_limited(body, self._effects.clock())
                    slot.rate_limited(limited.retry_after_seconds)
                    raise limited
                if body.status < 500:
                    slot.succeeded(body.headers)
                if body.status == 400 and xrpc_error(body).name in _NO_SUCH_HANDLE:
                    raise NotFoundError(
                        f"{self._url} can't resolve the handle {handle}", error_code="HandleNotFound", http_status=400
                    )
                if body.status != 200:
                    raise unexpected_status(body)
                did = json_object(body).get("did")
                if not isinstance(did, str) or not is_did(did):
                    raise server_fault(body, f"the answer for {handle} has no DID")
                return did
