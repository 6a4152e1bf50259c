"""Datetimes as records write them: the protocol's strict syntax, and microseconds since the epoch.

Stricter than RFC 3339 and than ISO 8601: upper-case `T` and `Z`, seconds and a zone required, `-00:00` not allowed.
Dates of the config file are another matter (`config`).
Source: https://atproto.com/specs/lexicon#datetime
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

DATETIME_MAX_LENGTH = 64

_DATETIME = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,20})?"
    r"(?:Z|(?!-00:00)[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MICROS_OF_400_YEARS = 146_097 * 86_400_000_000

YEAR_0_MICROS = -62_167_219_200_000_000
YEAR_10000_MICROS = 253_402_300_800_000_000


def parse_datetime(text: object) -> int | None:
    """The time that `text` says in microseconds since the epoch, UTC (digits past the sixth are cut off).

    Never raises: None for what is no string, breaks the syntax, names no real day or time, or falls outside the
    years 0000 to 9999 in UTC.
    """
    if type(text) is not str or len(text) > DATETIME_MAX_LENGTH or _DATETIME.fullmatch(text) is None:
        return None
    is_year_0 = text.startswith("0000")
    try:
        # Python's calendar starts at year 1; the Gregorian one repeats itself every 400 years.
        parsed = datetime.fromisoformat("0400" + text[4:] if is_year_0 else text)
    except ValueError:  # the 30th of February and its like
        return None
    micros = (parsed - _EPOCH) // _MICROSECOND
    if is_year_0:
        micros -= _MICROS_OF_400_YEARS
    return micros if YEAR_0_MICROS <= micros < YEAR_10000_MICROS else None


def is_datetime(text: str) -> bool:
    """Whether `text` is a datetime by the protocol's rules: strict syntax, and a time that exists."""
    return parse_datetime(text) is not None
