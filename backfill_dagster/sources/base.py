"""What a source of accounts is: rows of text, trimmed, bounded and each once. Sources give text and judge nothing.

Whether a text is a DID, a handle or neither is decided in `plan`; where rows come from is in the sibling modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

TEXT_MAX_BYTES = 2048
"""The longest DID is 2 KiB (https://atproto.com/specs/did); a longer text is cut with a mark that no DID can hold."""

COLUMN_MAX_BYTES = 1024
"""A kept column's value is cut here: it is carried into the plan and the reports of every DID."""

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a source.

    Attributes:
        text: what stands in the DID column, trimmed; empty for NULL and blank values.
        columns: the `keep_columns` as text, None for null.
    """

    text: str
    columns: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class RowCounts:
    """What was met on the way through a source; `rows - duplicates` is what came out.

    Attributes:
        rows: rows of the source.
        duplicates: rows left out because their text had come before.
        empty: rows with NULL or a blank value; the first of them is given as an empty text.
    """

    rows: int = 0
    duplicates: int = 0
    empty: int = 0


class Source(Protocol):
    """A list of accounts that can be read any number of times."""

    def rows(self, counts: RowCounts | None = None) -> Iterator[SourceRow]:
        """The rows in the source's order, streamed; each text once, the first row wins.

        A database or file stays open while the iterator lives, so read it through before slow work.

        Args:
            counts: filled on the way when given.

        Raises:
            SourceError: at the first `next` when the source can't be opened or has another shape than the config says;
                later when it turns out to be damaged.
        """
        ...

    def describe(self) -> str:
        """The source in words, one line."""
        ...

    def version(self) -> str:
        """Text that changes when the content does. Raises SourceError when there is nothing to look at."""
        ...


RawRow: TypeAlias = tuple[object, Sequence[object]]
"""A row as it was read: the value of the DID column, the values of the kept columns."""


def clean_rows(
    raw: Iterable[RawRow], keep_columns: Sequence[str], counts: RowCounts | None = None
) -> Iterator[SourceRow]:
    """Rows as `Source.rows` promises them. Costs about 120 bytes of memory per distinct text (a digest in a set)."""
    counts = RowCounts() if counts is None else counts
    seen: set[bytes] = set()
    for value, kept in raw:
        counts.rows += 1
        text = clean_text(value)
        counts.empty += not text
        digest = hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()
        if digest in seen:
            counts.duplicates += 1
            continue
        seen.add(digest)
        yield SourceRow(text, {name: _column_text(one) for name, one in zip(keep_columns, kept, strict=True)})


def clean_text(value: object) -> str:
    """A value of the DID column as text: trimmed, valid Unicode, at most `TEXT_MAX_BYTES` of UTF-8.

    What is cut ends in a digest of the whole, so that two long texts stay two.
    """
    text = (_text_of(value) or "").strip()
    if text.isascii() and len(text) <= TEXT_MAX_BYTES:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= TEXT_MAX_BYTES:
        return data.decode()
    return _cut(data, TEXT_MAX_BYTES, f"…sha256:{hashlib.sha256(data).hexdigest()[:16]}")


def _column_text(value: object) -> str | None:
    text = _text_of(value)
    if text is None:
        return None
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= COLUMN_MAX_BYTES else _cut(data, COLUMN_MAX_BYTES, "…")


def _cut(data: bytes, max_bytes: int, mark: str) -> str:
    return data[: max_bytes - len(mark.encode())].decode("utf-8", "ignore") + mark


def _text_of(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
