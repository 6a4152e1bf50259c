"""From Arrow's columns to Python's values, in memory that doesn't depend on what a file claims to hold.

A value that a Parquet file has once can stand in each of its rows: a batch of few rows is what bounds that, and what is
too long for a DID or a kept column is cut before more rows are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from backfill_dagster.errors import SourceError
from backfill_dagster.sources.base import TEXT_MAX_BYTES, RawBatch, clean_text, column_text
from backfill_dagster.sources.columns import Columns

READ_ROWS = 2048
"""Asked of Arrow at a time. Each of them may have the same long value, which Arrow copies for each."""

BATCH_ROWS = 16_384
"""Handed on at a time: making values of many at once, and looking up whether they have come before, is cheaper."""

_JOINED_MAX_BYTES = 32 * 1024 * 1024

_Cut: TypeAlias = Callable[[object], str | None]


def arrow_batches(
    batches: Iterable[pa.RecordBatch], names: Sequence[str], columns: Columns, name: str
) -> Iterator[RawBatch]:
    """The columns that are wanted, as Python values.

    Args:
        batches: of about `READ_ROWS`; have at least the wanted columns, each once.
        names: those that `columns` are positions in.
        columns: what is wanted.
        name: where it is from, for errors.

    Raises:
        SourceError: a column holds something that is no text and can't become text.
    """
    for batch in _joined(batches):
        main = _values(name, names[columns.main], batch, clean_text)
        yield RawBatch(main, [_values(name, names[index], batch, column_text) for index in columns.kept])


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Larger batches, as long as their values are short."""
    waiting: list[pa.RecordBatch] = []
    rows = size = enough = 0
    for batch in batches:
        if not enough:
            # Joining dictionaries can take far longer than reading them one by one.
            enough = 1 if any(map(pa.types.is_dictionary, batch.schema.types)) else BATCH_ROWS
        waiting.append(batch)
        rows += len(batch)
        size += batch.nbytes
        if rows >= enough or size >= _JOINED_MAX_BYTES:
            yield waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_batches(waiting)


def _values(name: str, column: str, batch: pa.RecordBatch, cut: _Cut) -> list[object]:
    array = batch.column(column)
    try:
        if not pa.types.is_dictionary(array.type):
            array = _as_bytes_or_text(array)
            if array.nbytes <= len(array) * TEXT_MAX_BYTES:
                values: list[object] = array.to_pylist()
                return values
            array = array.dictionary_encode()
        return _cut_values(array, cut)
    except pa.ArrowNotImplementedError as error:
        raise SourceError(f"{name}, column {column!r} holds {array.type}, not text: name another") from error


def _cut_values(array: pa.DictionaryArray, cut: _Cut) -> list[object]:
    """One text for each different value, however many rows have it."""
    used = array.indices.unique()
    texts = [cut(one.as_py()) for one in _as_bytes_or_text(array.dictionary.take(used))]
    return list(map(dict(zip(used.to_pylist(), texts, strict=True)).__getitem__, array.indices.to_pylist()))


def _as_bytes_or_text(array: pa.Array) -> pa.Array:
    """Text that isn't ASCII comes as bytes: a Parquet file can claim that anything is UTF-8. All else becomes text."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array if pc.all(pc.string_is_ascii(array)).as_py() else array.cast(pa.large_binary())
    if pa.types.is_string_view(kind):
        return array.cast(pa.large_binary())
    return array if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else array.cast(pa.string())
