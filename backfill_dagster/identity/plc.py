"""The PLC directory: did:plc -> the JSON of its DID document, one request at its pace.

Source: https://web.plc.directory/spec/v0.1/did-plc. Caching, retries and reading the document are in `resolver`.
"""

from __future__ import annotations

from backfill_dagster.atproto.did import is_plc_did
from backfill_dagster.effects import Effects
from backfill_dagster.errors import NotFoundError
from backfill_dagster.identity.service_url import service_url
from backfill_dagster.net import HostLimiter, HttpSession, get
from backfill_dagster.net.answers import is_rate_limit, json_object, rate_limited, unexpected_status

DOCUMENT_MAX_BYTES = 1024 * 1024
ACCEPT = {"Accept": "application/did+ld+json, application/json"}


class PlcDirectory:
    """One PLC directory, asked under one limiter."""

    def __init__(self, session: HttpSession, url: str, limiter: HostLimiter, effects: Effects) -> None:
        """UsageError when `url` isn't an http(s) origin."""
        self._session = session
        self._url = service_url(url, "identity.plc_url")
        self._limiter = limiter
        self._effects = effects

    async def document(self, did: str) -> dict[str, object]:
        """The DID document as JSON, unread.

        Raises:
            NotFoundError: never registered (`error_code` DidNotFound), tombstoned (Tombstoned), or no did:plc that
                could exist (InvalidPlcDid: not asked at all).
            RateLimitedError: 429; the limiter has been told, so asking again waits.
            TransientError: its other kinds, when the directory doesn't answer or makes no sense.
        """
        if not is_plc_did(did):
            raise NotFoundError(
                f"{did[:100]} can't exist: did:plc is followed by 24 characters of a-z and 2-7",
                error_code="InvalidPlcDid",
            )
        async with self._limiter.slot() as slot:
            body = await get(self._session, f"{self._url}/{did}", max_bytes=DOCUMENT_MAX_BYTES, headers=ACCEPT)
            with body:
                if is_rate_limit(body):
                    error = rate_limited(body, self._effects.clock())
                    slot.rate_limited(error.retry_after_seconds)
                    raise error
                if body.status < 500:
                    slot.succeeded(body.headers)
                if body.status in (404, 410):
                    raise missing(did, body.status, f"the PLC directory {self._url}")
                if body.status != 200:
                    raise unexpected_status(body)
                return json_object(body)


def missing(did: str, status: int, where: str) -> NotFoundError:
    """The error for a DID that a server says is unknown (404) or gone (410)."""
    if status == 410:
        return NotFoundError(f"{did} is tombstoned in {where}", error_code="Tombstoned", http_status=status)
    return NotFoundError(f"{did} is unknown to {where}", error_code="DidNotFound", http_status=status)
