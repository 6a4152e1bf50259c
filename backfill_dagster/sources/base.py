"""What a source of accounts is: rows of text, trimmed, bounded and each once. Sources give text and judge nothing.

Whether a text is a DID, a handle or neither is decided in `plan`; where rows come from is in the sibling modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress, repeat
from typing import NamedTuple, Protocol, TypeAlias

from backfill_dagster.sources.seen import SeenTexts

TEXT_MAX_BYTES = 2048
"""The longest DID is 2 KiB (https://atproto.com/specs/did); a longer text is cut with a mark that no DID can hold."""

COLUMN_MAX_BYTES = 1024
"""A kept column's value is cut here: it is carried into the plan and the reports of every DID."""

_BATCH_ROWS = 1024
"""Of sources that give row by row. Each is cut before it waits for the others, so 1024 of them stay small."""

_NO_COLUMNS: Mapping[str, str | None] = {}


class SourceRow(NamedTuple):
    """One row of a source.

    Attributes:
        text: what stands in the DID column, trimmed; empty for NULL and blank values.
        columns: the `keep_columns` as text, None for null.
    """

    text: str
    columns: Mapping[str, str | None] = _NO_COLUMNS


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


class RawBatch(NamedTuple):
    """Rows as they were read, by columns: the values of the DID column, those of each kept column."""

    values: Sequence[object]
    kept: Sequence[Sequence[object]] = ()


def clean_rows(
    raw: Iterable[RawRow], keep_columns: Sequence[str], counts: RowCounts | None = None
) -> Iterator[SourceRow]:
    """Rows as `Source.rows` promises them."""
    return clean_batches(in_batches(raw), keep_columns, counts)


def clean_batches(
    batches: Iterable[RawBatch], keep_columns: Sequence[str], counts: RowCounts | None = None
) -> Iterator[SourceRow]:
    """Rows as `Source.rows` promises them; a batch is read when the first of its rows is asked for.

    Costs memory as `SeenTexts` says, and about half a microsecond of CPU for a row without kept columns.
    """
    # No generator stands between this and the caller: going through one costs more than making the row.
    return chain.from_iterable(_cleaned(batches, tuple(keep_columns), RowCounts() if counts is None else counts))


def in_batches(raw: Iterable[RawRow]) -> Iterator[RawBatch]:
    """Rows that come one by one, bounded and put together."""
    values: list[object] = []
    kept_rows: list[list[str | None]] = []
    for value, kept in raw:
        is_short = isinstance(value, str) and len(value) <= TEXT_MAX_BYTES
        values.append(value if is_short else clean_text(value))
        if kept:
            kept_rows.append([column_text(one) for one in kept])
        if len(values) == _BATCH_ROWS:
            yield RawBatch(values, list(zip(*kept_rows, strict=True)))
            values, kept_rows = [], []
    if values:
        yield RawBatch(values, list(zip(*kept_rows, strict=True)))


def _cleaned(
    batches: Iterable[RawBatch], keep_columns: tuple[str, ...], counts: RowCounts
) -> Iterator[Iterable[SourceRow]]:
    seen = SeenTexts()
    for batch in batches:
        texts = _clean_texts(batch.values)
        counts.rows += len(texts)
        counts.empty += texts.count("")
        new = seen.add(texts)
        duplicates = new.count(False)
        counts.duplicates += duplicates
        columns = _columns_of(batch.kept, keep_columns) if keep_columns else repeat(_NO_COLUMNS)
        # As SourceRow(...) does, at half the cost.
        rows = map(tuple.__new__, repeat(SourceRow), zip(texts, columns, strict=False))
        yield compress(rows, new) if duplicates else rows


def _clean_texts(values: Sequence[object]) -> list[str]:
    """`clean_text` of each; at once where all are as a DID should be."""
    try:
        if "".join(values).isascii():  # type: ignore[arg-type]  # what isn't text is found out by that
            texts = list(map(str.strip, values))  # type: ignore[arg-type]
            if max(map(len, texts), default=0) <= TEXT_MAX_BYTES:
                return texts
    except TypeError:
        pass
    return [clean_text(value) for value in values]


def _columns_of(kept: Sequence[Sequence[object]], names: tuple[str, ...]) -> Iterator[Mapping[str, str | None]]:
    columns = [[column_text(one) for one in values] for values in kept]
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


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


def column_text(value: object) -> str | None:
    """A value of a kept column as text: valid Unicode, at most `COLUMN_MAX_BYTES` of UTF-8; None for null."""
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
