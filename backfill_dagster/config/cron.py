"""Cron strings: five fields, or one of the @names. Only whether they are well formed and come due at all."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backfill_dagster.config.values import Kind

_PRESETS = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class _Field:
    minimum: int
    maximum: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        """One number or name; ValueError outside of the field's range."""
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.minimum
        if re.fullmatch(r"[0-9]{1,2}", text) is None or not self.minimum <= int(text) <= self.maximum:
            raise ValueError(text)
        return int(text)

    def values(self, text: str) -> set[int]:
        """All values that a field's text (`*/15`, `1-5`, `mon,wed`) stands for."""
        found: set[int] = set()
        for part in text.split(","):
            span, slash, step_text = part.partition("/")
            step = int(step_text) if re.fullmatch(r"[1-9][0-9]?", step_text) else 1
            if slash and str(step) != step_text:
                raise ValueError(text)
            first, dash, last = span.partition("-")
            start = self.minimum if span == "*" else self.number(first)
            end = self.maximum if span == "*" or (slash and not dash) else self.number(last) if dash else start
            if start > end:
                raise ValueError(text)
            found.update(range(start, end + 1, step))
        return found


_FIELDS = (_Field(0, 59), _Field(0, 23), _Field(1, 31), _Field(1, 12, _MONTHS), _Field(0, 7, _DAYS))


@dataclass(frozen=True)
class Cron(Kind):
    """A cron string: minute, hour, day of month, month, day of week."""

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return 'a cron string of five fields ("0 3 * * *") that comes due some day, or @hourly, @daily, @weekly, ...'

    def read(self, value: object) -> str:
        """The string as it stands, spaces trimmed."""
        if not isinstance(value, str):
            raise ValueError
        text = value.strip()
        if text in _PRESETS:
            return text
        parts = text.split()
        if len(parts) != len(_FIELDS):
            raise ValueError
        _, _, days, months, _ = [field.values(part) for field, part in zip(_FIELDS, parts, strict=True)]
        # 31 February never comes; with a day of week beside it cron takes either of the two, but Dagster neither.
        if all(min(days) > _LONGEST_MONTHS[month - 1] for month in months):
            raise ValueError
        return text
