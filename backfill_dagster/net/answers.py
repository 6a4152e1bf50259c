"""What an answer means where all servers of this network agree: rate limits, JSON objects, XRPC error bodies.

What a certain error name means to a repo or a handle is in `pds` and `identity`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from backfill_dagster.errors import RateLimitedError, ServerFaultError
from backfill_dagster.net.body import Body
from backfill_dagster.net.evidence import evidence_headers, pause_seconds

_RATE_LIMIT_NAMES = ("RateLimitExceeded", "TooManyRequests")


@dataclass(frozen=True, slots=True)
class XrpcError:
    """The error of an XRPC answer; both empty when the body isn't one.

    Source: https://atproto.com/specs/xrpc#error-responses
    """

    name: str = ""
    message: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.name, self.message) if part)


def xrpc_error(body: Body) -> XrpcError:
    """Read `{"error", "message"}`; fields of another type, or over-long names, are left out."""
    try:
        data = orjson.loads(bytes(body.data))
    except orjson.JSONDecodeError:
        return XrpcError()
    if not isinstance(data, dict):
        return XrpcError()
    name, message = data.get("error"), data.get("message")
    return XrpcError(
        name if isinstance(name, str) and len(name) <= 64 and name.isidentifier() else "",
        _one_line(message) if isinstance(message, str) else "",
    )


def json_object(body: Body) -> dict[str, Any]:
    """The body as a JSON object; ServerFaultError when it isn't one."""
    try:
        data = orjson.loads(bytes(body.data))
    except orjson.JSONDecodeError as error:
        raise server_fault(body, f"the answer isn't JSON ({_one_line(str(error))})") from error
    if not isinstance(data, dict):
        raise server_fault(body, "the answer isn't a JSON object")
    return data


def is_rate_limit(body: Body) -> bool:
    """Whether the server asks for a pause: 429, or a 4xx that says so by name."""
    return body.status == 429 or (400 <= body.status < 500 and xrpc_error(body).name in _RATE_LIMIT_NAMES)


def rate_limited(body: Body, now: float) -> RateLimitedError:
    """The error for an answer that `is_rate_limit`; `now` in seconds since the epoch."""
    wait = pause_seconds(body.headers, now)
    return RateLimitedError(
        f"{body.url} rate-limits ({body.status}), "
        + ("without saying how long to wait" if wait is None else f"asking for {wait:.0f} s"),
        retry_after_seconds=wait,
        http_status=body.status,
        headers=evidence_headers(body.headers),
        body_sha256=body.sha256,
    )


def server_fault(body: Body, why: str) -> ServerFaultError:
    """The error for an answer that makes no sense, with its evidence."""
    return ServerFaultError(
        f"{body.url}: {why}",
        http_status=body.status,
        headers=evidence_headers(body.headers),
        body_sha256=body.sha256,
    )


def unexpected_status(body: Body) -> ServerFaultError:
    """The error for a status that nobody is prepared for; its text carries the XRPC error's name and message."""
    said = str(xrpc_error(body))
    return server_fault(body, f"answers {body.status}" + (f" {said}" if said else ""))


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:300]).strip()
