"""What a PDS's refusal means: an account that isn't served, a rate limit, or a server that makes no sense.

Only reading answers. Error names are those of com.atproto.sync.getRepo; hosts also say them with 404, or only in words.
Source: https://docs.bsky.app/docs/api/com-atproto-sync-get-repo
"""

from __future__ import annotations

import re

from backfill_dagster.errors import AccountUnavailableError, RateLimitedError, ServerFaultError
from backfill_dagster.net import Body
from backfill_dagster.net.answers import XrpcError, is_rate_limit, rate_limited, unexpected_status, xrpc_error
from backfill_dagster.net.evidence import evidence_headers

ACCOUNT_ERRORS = ("RepoNotFound", "RepoDeactivated", "RepoSuspended", "RepoTakendown")

_ACCOUNT_STATUSES = (400, 404)
_NOT_FOUND_WORDS = re.compile(r"could not find (?:repo|user|account|root)\b", re.IGNORECASE)


def refusal(body: Body, now: float) -> AccountUnavailableError | RateLimitedError | ServerFaultError:
    """The error for an answer that isn't 200.

    Anything that doesn't name one of the four account errors is taken for a fault that may pass: a proxy's 404 page or
    an unknown error name proves nothing about the account. Such an error's name and message are in its text.

    Args:
        body: the answer.
        now: seconds since the epoch.
    """
    if is_rate_limit(body):
        return rate_limited(body, now)
    said = xrpc_error(body)
    code = _account_error(body.status, said)
    if code is None:
        return unexpected_status(body)
    return AccountUnavailableError(
        f"{body.url} says {said}",
        error_code=code,
        http_status=body.status,
        headers=evidence_headers(body.headers),
        body_sha256=body.sha256,
    )


def _account_error(status: int, said: XrpcError) -> str | None:
    if status not in _ACCOUNT_STATUSES:
        return None
    if said.name in ACCOUNT_ERRORS:
        return said.name
    return "RepoNotFound" if said.name and _NOT_FOUND_WORDS.search(said.message) else None
