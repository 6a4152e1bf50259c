"""Timestamps as record keys and revs (TIDs), written fast; reading them is `atproto`'s business.

Source: https://atproto.com/specs/tid
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
MICROS_A_DAY = 86_400_000_000

EPOCH_START_US = 1_704_067_200_000_000
"""2024-01-01T00:00:00Z: no generated record is older by its TID."""

EPOCH_END_US = EPOCH_START_US + 730 * MICROS_A_DAY
"""2025-12-31T00:00:00Z: two years later the generated histories end; edits come after."""


@cache
def _triples() -> list[str]:
    return [a + b + c for a in ALPHABET for b in ALPHABET for c in ALPHABET]


def tid(micros: int, clock_id: int) -> str:
    """The 13 characters of a moment (microseconds since the Unix epoch, below 2^53) and a clock id (0-1023)."""
    value = micros << 10 | clock_id
    triples = _triples()
    return (
        ALPHABET[value >> 60]
        + triples[value >> 45 & 0x7FFF]
        + triples[value >> 30 & 0x7FFF]
        + triples[value >> 15 & 0x7FFF]
        + triples[value & 0x7FFF]
    )


@cache
def _day_text(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%dT")


def clock_text(micros: int) -> str:
    """Date and time of day with milliseconds and no zone: `2025-01-02T03:04:05.678`."""
    day, rest = divmod(micros, MICROS_A_DAY)
    seconds, micro = divmod(rest, 1_000_000)
    minutes, second = divmod(seconds, 60)
    return f"{_day_text(day)}{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{micro // 1000:03d}"
