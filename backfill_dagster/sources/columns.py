"""Which of a source's columns are meant: the DID column and the kept ones, found by name, with errors that name all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backfill_dagster.errors import SourceError

_NAMES_SHOWN = 20
_NAME_CHARS_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Columns:
    """Positions in a row: `main` of the DID (or URI) column, `kept` of the kept columns in the config's order."""

    main: int
    kept: tuple[int, ...]


def find_columns(
    found: Sequence[str], *, column: str | None, default: str, keep_columns: Sequence[str], where: str, remedy: str
) -> Columns:
    """Find the columns by name.

    Args:
        found: the columns that are there.
        column: the one that is asked for; None: the one named `default`, or the only one there is.
        default: the name that is expected when the config says nothing.
        keep_columns: the columns to be carried along.
        where: the source, for errors.
        remedy: what to do about a missing DID column, as the end of the error's sentence.

    Raises:
        SourceError: a column is missing, or its name is there twice.
    """
    main = 0 if column is None and len(found) == 1 else _position(found, column or default, where, remedy)
    kept = tuple(_position(found, one, where, "correct source.keep_columns") for one in keep_columns)
    return Columns(main, kept)


def _position(found: Sequence[str], name: str, where: str, remedy: str) -> int:
    times = list(found).count(name)
    if times == 1:
        return list(found).index(name)
    what = f"no column {name!r}" if times == 0 else f"{times} columns {name!r}"
    raise SourceError(f"{where} has {what}; columns found: {name_list(found)}; {remedy}")


def name_list(names: Sequence[str]) -> str:
    """Names for a message, bounded: a file that isn't what it should be can have anything for a header."""
    if not names:
        return "none"
    shown = [_short(one) for one in names[:_NAMES_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _NAME_CHARS_SHOWN else line[:_NAME_CHARS_SHOWN] + "…"
