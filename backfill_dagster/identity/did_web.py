"""did:web: the DID document is a file on the account's own host, which is a stranger's.

Source: https://atproto.com/specs/did and https://w3c-ccg.github.io/did-method-web/ (AT Protocol: bare host names only).
"""

from __future__ import annotations

import re

from backfill_dagster.effects import Effects
from backfill_dagster.errors import InvalidDidDocumentError, RefusedHostError, ServerFaultError
from backfill_dagster.identity.plc import ACCEPT, DOCUMENT_MAX_BYTES, missing
from backfill_dagster.net import HttpSession, Origin, TotalLimiter, check_endpoint, get
from backfill_dagster.net.answers import is_rate_limit, json_object, rate_limited, unexpected_status
from backfill_dagster.net.host_safety import HOW_TO_ALLOW

WELL_KNOWN_PATH = "/.well-known/did.json"

_LOCALHOST = re.compile(r"localhost(?:%3[Aa]([0-9]{1,5}))?")


class DidWeb:
    """Asks did:web hosts, all of them at one pace."""

    def __init__(self, session: HttpSession, limiter: TotalLimiter, effects: Effects) -> None:
        self._session = session
        self._limiter = limiter
        self._effects = effects

    async def document(self, did: str) -> dict[str, object]:
        """The DID document as JSON, unread.

        Raises:
            NotFoundError: the host has no such file (404, 410).
            InvalidDidDocumentError: the DID has a path or a port, or the file is no JSON object (`error_code`
                UnsupportedDidWeb, InvalidDidDocument).
            RefusedHostError: the host is private and may not be asked.
            TooLargeError: over 1 MiB.
            TransientError: its kinds, when the host doesn't answer or makes no sense.
        """
        origin = did_web_origin(did, self._session.allow_private_hosts)
        await self._limiter.wait()
        body = await get(self._session, origin.url + WELL_KNOWN_PATH, max_bytes=DOCUMENT_MAX_BYTES, headers=ACCEPT)
        with body:
            if is_rate_limit(body):
                raise rate_limited(body, self._effects.clock())
            if body.status in (404, 410):
                raise missing(did, body.status, origin.url)
            if body.status != 200:
                raise unexpected_status(body)
            try:
                return json_object(body)
            except ServerFaultError as error:
                # Parked domains answer everything with a page: that is no fault that passes.
                raise InvalidDidDocumentError(
                    str(error),
                    error_code="InvalidDidDocument",
                    http_status=error.http_status,
                    headers=error.headers,
                    body_sha256=error.body_sha256,
                ) from error


def did_web_origin(did: str, allow_private_hosts: bool) -> Origin:
    """Where a did:web's document is: https on its host; `localhost`, with a port if any, is http and has to be allowed.

    Raises:
        InvalidDidDocumentError: it names a path or a port (`error_code` UnsupportedDidWeb).
        RefusedHostError: a private name or address.
    """
    name = did.removeprefix("did:web:")
    local = _LOCALHOST.fullmatch(name)
    if local is not None:
        if not allow_private_hosts:
            raise RefusedHostError(f"{did} is on this machine; {HOW_TO_ALLOW}", error_code="PrivateHost")
        return check_endpoint(f"http://localhost:{local[1] or 80}", allow_private=True)
    if ":" in name or "%" in name:
        raise InvalidDidDocumentError(
            f"{did[:200]} names a path or a port; AT Protocol's did:web is a bare host name",
            error_code="UnsupportedDidWeb",
        )
    return check_endpoint(f"https://{name}", allow_private_hosts)
