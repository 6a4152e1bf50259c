"""CSV files as one Parquet file of text, for a query, which so gets the rows that reading without one would give.

DuckDB's own reader has other rules: it refuses a file for one byte that isn't UTF-8, or for a line break in quotes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain, islice, repeat, zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.sources.alike import AlikeColumns
from backfill_dagster.sources.delimited import csv_rows
from backfill_dagster.sources.tables import Shape, TableFile, csv_names, delimiter_of
from backfill_dagster.sources.temporary import room_errors

_CELLS = 256 * 1024
"""Of one row group."""

_CHARS = 16 * 1024 * 1024

_ROWS = 128
"""Turned into columns at a time; each may be a line of a mebibyte."""

_NO_COLUMNS = ["column0"]
"""Of files without a header that are all empty: a table has to have one."""


def copy_csv(files: Iterable[AbstractContextManager[TableFile]], shape: Shape, to: Path) -> None:
    """Write the rows of CSV files into one Parquet file. An empty cell, and one that a short row lacks, is null.

    Args:
        files: opened one after the other.
        shape: whether they have headers.
        to: the file to be written.

    Raises:
        SourceError: a file is damaged or not like the first, or the disk is full.
        OSError: a file can't be read.
    """
    with ExitStack() as stack:
        copy = _Copy(to, shape, stack)
        for opening in files:
            with opening as file:
                copy.add(file)
        copy.end()


class _Copy:
    def __init__(self, to: Path, shape: Shape, stack: ExitStack) -> None:
        self._to = to
        self._shape = shape
        self._stack = stack
        self._alike = AlikeColumns()
        self._writer: pq.ParquetWriter | None = None

    def add(self, file: TableFile) -> None:
        with file.stream() as stream:
            rows = csv_rows(stream, file.name, delimiter_of(file.name))
            first = next(rows, None)
            if first is None and not self._shape.header:
                return
            named = csv_names(first, file.name, self._shape)
            # A table that was written with its row numbers has no name for them.
            names = [name or f"column{index}" for index, name in enumerate(named)]
            self._alike.check(names, ["text"] * len(names), file.name)
            data = rows if self._shape.header or first is None else chain([first], rows)
            for arrays in _in_pieces(data, len(names)):
                self._write(names, arrays)

    def end(self) -> None:
        """The file is whole, also when there was no row."""
        if self._writer is None:
            names = self._alike.names or _NO_COLUMNS
            self._write(names, [pa.nulls(0, pa.string()) for _ in names])
        with room_errors(self._to.parent):
            self._stack.close()

    def _write(self, names: Sequence[str], arrays: Sequence[pa.Array]) -> None:
        batch = pa.record_batch(arrays, names=list(names))
        with room_errors(self._to.parent):
            if self._writer is None:
                self._writer = self._stack.enter_context(pq.ParquetWriter(self._to, batch.schema))
            self._writer.write_batch(batch.select(self._alike.names or _NO_COLUMNS))


def _in_pieces(rows: Iterator[list[str]], width: int) -> Iterator[list[pa.Array]]:
    """The columns, some rows at a time."""
    rows_max = max(_CELLS // width, 1)
    columns: list[list[str | None]] = [[] for _ in range(width)]
    chars = 0
    while some := list(islice(rows, _ROWS)):
        if max(map(len, some)) > width:
            some = [row[:width] for row in some]
        chars += sum(map(len, chain.from_iterable(some)))
        by_column = chain(zip_longest(*some), repeat((None,) * len(some)))
        for column, cells in zip(columns, by_column, strict=False):
            column += [cell or None for cell in cells]
        if len(columns[0]) >= rows_max or chars >= _CHARS:
            yield [pa.array(column, pa.string()) for column in columns]
            columns, chars = [[] for _ in range(width)], 0
    if columns[0]:
        yield [pa.array(column, pa.string()) for column in columns]
