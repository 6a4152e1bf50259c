"""The moments of `time_range`: a date, an ISO datetime, or the legacy YYYY-MM-DD-HH:MM:SS. In UTC microseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from backfill_dagster.config.values import Kind

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LEGACY = re.compile(rf"({_DATE.pattern})-([0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}})")
_ISO = re.compile(
    rf"{_DATE.pattern}[Tt ][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}(\.[0-9]{{1,9}})?)?([Zz]|[+-][0-9]{{2}}:[0-9]{{2}})?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = timedelta(days=1) // _MICROSECOND


@dataclass(frozen=True)
class Moment(Kind):
    """A point in time, kept as written."""

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return "a date (2025-01-02), an ISO datetime (2025-01-02T03:04:05Z; UTC without a zone) or 2025-01-02-03:04:05"

    def read(self, value: object) -> str:
        """The text; Python's dates (of a config built in code) become text."""
        if isinstance(value, date):  # a datetime is one, too
            value = value.isoformat()
        if not isinstance(value, str):
            raise ValueError
        first_microsecond(value)
        return value.strip()


def first_microsecond(text: str) -> int:
    """Microseconds since 1970 (UTC) at which `text` begins; ValueError when it is no moment."""
    text = text.strip()
    legacy = _LEGACY.fullmatch(text)
    if legacy is not None:
        text = f"{legacy[1]}T{legacy[2]}"
    elif not is_date(text) and _ISO.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a date or datetime")
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def last_microsecond(text: str) -> int:
    """Microseconds since 1970 (UTC) at which `text` ends: a plain date means the whole day."""
    return first_microsecond(text) + (_DAY_US - 1 if is_date(text.strip()) else 0)


def is_date(text: str) -> bool:
    """Whether it is a plain date."""
    return _DATE.fullmatch(text) is not None
