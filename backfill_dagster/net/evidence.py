"""Which headers of an answer are kept as evidence beside an outcome, and what they say about pausing.

Only reading headers; who pauses is in `rate_limit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

EVIDENCE_HEADERS = (
    "content-length",
    "content-type",
    "date",
    "location",
    "ratelimit-limit",
    "ratelimit-policy",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
    "server",
    "via",
    "x-request-id",
)
EVIDENCE_VALUE_MAX_CHARS = 200

_EPOCH_SECONDS_FROM = 1_000_000_000.0


def evidence_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers worth keeping, values cut and printable only."""
    return {
        name: "".join(c if c.isprintable() else "?" for c in headers[name][:EVIDENCE_VALUE_MAX_CHARS])
        for name in EVIDENCE_HEADERS
        if name in headers
    }


def pause_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the server asks to wait: Retry-After (number or date), else `ratelimit-reset`; None when it doesn't say.

    Args:
        headers: lower case names. Their own Date, if readable, stands in for `now`, so that clocks needn't agree.
        now: seconds since the epoch.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    now = _date(headers.get("date", "")) or now
    retry_after = headers.get("retry-after", "").strip()
    wait = _number(retry_after)
    if wait is None and (at := _date(retry_after)) is not None:
        wait = at - now
    if wait is None:
        wait = reset_seconds(headers, now)
    return wait if wait is not None and wait >= 0 else None


def reset_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until the rate limit's window ends, by `ratelimit-reset` (epoch seconds, or seconds from now)."""
    reset = _number(headers.get("ratelimit-reset", ""))
    if reset is None:
        return None
    wait = reset - (_date(headers.get("date", "")) or now) if reset >= _EPOCH_SECONDS_FROM else reset
    return wait if wait >= 0 else None


def is_used_up(headers: Mapping[str, str]) -> bool:
    """Whether `ratelimit-remaining` says that the window's budget is gone."""
    remaining = _number(headers.get("ratelimit-remaining", ""))
    return remaining is not None and remaining <= 0


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
