"""TIDs, the sortable timestamps that are revs and most record keys: syntax, making one, reading its time.

Source: https://atproto.com/specs/tid
"""

from __future__ import annotations

import re

_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
_TO_BASE32HEX = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
_TID = re.compile(r"[2-7a-j][2-7a-z]{12}")

MICROS_MAX = 2**53 - 1
CLOCK_ID_MAX = 1023


def is_tid(text: str) -> bool:
    """Whether `text` is a syntactically valid TID: 13 characters of base32-sortable with the top bit clear."""
    return _TID.fullmatch(text) is not None


def tid_from_micros(micros: int, clock_id: int = 0) -> str:
    """Make the TID of a time.

    Args:
        micros: microseconds since the epoch, UTC, 0 to 2^53 - 1.
        clock_id: 0 to 1023, tells writers within one microsecond apart.

    Raises:
        ValueError: either is out of its range.
    """
    if not 0 <= micros <= MICROS_MAX or not 0 <= clock_id <= CLOCK_ID_MAX:
        raise ValueError(f"no TID can say {micros} microseconds with clock id {clock_id}")
    number = micros << 10 | clock_id
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(60, -5, -5))


def micros_of_tid(tid: str) -> int:
    """The time of a TID in microseconds since the epoch, UTC; whether it is plausible is for the caller to judge.

    Raises:
        ValueError: `tid` is not a TID.
    """
    if _TID.fullmatch(tid) is None:
        raise ValueError(f"{tid[:100]!r} is not a TID")
    return int(tid.translate(_TO_BASE32HEX), 32) >> 10
