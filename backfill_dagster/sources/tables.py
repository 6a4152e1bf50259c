"""Batches of rows out of an opened file, whatever its format and wherever it lies: on this disk or on S3.

How lines are cut and decoded is in `delimited`, how Arrow's columns become values in `arrow_values`, which columns are
meant in `columns`. Opening files, and what it means when that fails, is the business of whoever opens them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.atproto.handle import is_handle
from backfill_dagster.config.sources import FileFormat
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.arrow_values import READ_ROWS, arrow_batches
from backfill_dagster.sources.base import RawBatch, RawRow, in_batches
from backfill_dagster.sources.columns import Columns, find_columns, name_list
from backfill_dagster.sources.delimited import csv_rows, text_lines

_BUFFER_BYTES = 4 * 1024 * 1024
"""A column of a row group is read piece by piece: some writers make a whole file one group."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the config says about the columns of a file.

    Attributes:
        column: name of the DID column; None: `default_column`, or the only one. A CSV file without a header has
            `column0`, `column1`, ...; text has none.
        header: whether a CSV file's first line names the columns.
        keep_columns: more columns to carry along.
        default_column: the name that is expected when the config says nothing.
    """

    column: str | None = None
    header: bool = True
    keep_columns: tuple[str, ...] = ()
    default_column: str = "did"

    def columns(self, found: Sequence[str], name: str) -> Columns:
        """Which of the columns found in the file `name` are meant.

        Raises:
            SourceError: one isn't there.
        """
        return find_columns(
            found,
            column=self.column,
            default=self.default_column,
            keep_columns=self.keep_columns,
            where=name,
            remedy="set source.column",
        )


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file that can be opened.

    Attributes:
        name: for errors: its path or address; CSV named `.tsv` is cut at tabs.
        stream: opens it for reading from its start on.
        random: opens it for pyarrow, which reads here and there.
    """

    name: str
    stream: Callable[[], AbstractContextManager[io.BufferedReader]]
    random: Callable[[], AbstractContextManager[Any]]


def read_batches(file: TableFile, file_format: FileFormat, shape: Shape) -> Iterator[RawBatch]:
    """The rows of a file.

    Raises:
        SourceError: it is damaged, or has another shape than the config says.
        OSError: it can't be opened or read.
    """
    match file_format:
        case "parquet":
            return _from_parquet(file, shape)
        case "csv":
            return in_batches(_from_csv(file, shape))
        case "text":
            return in_batches(_from_text(file, shape))


def csv_names(first: list[str] | None, name: str, shape: Shape) -> list[str]:
    """The names of a CSV file's columns, by its first row (None: it has no row).

    Raises:
        SourceError: the file is empty, or its first line isn't a header.
    """
    if first is None:
        raise SourceError(f"{name} is empty: a CSV file needs at least its header line")
    if not shape.header:
        return [f"column{index}" for index in range(len(first))]
    names = [one.strip() for one in first]
    # A list of handles has nothing else to tell it by; who really has such a name for a column can say so.
    is_handle_list = shape.column is None and len(names) == 1 and is_handle(names[0])
    if is_handle_list or any(one.startswith(("did:", "at://")) for one in names):
        raise SourceError(
            f"{name}: the first line is data, not a header ({name_list(names)}); set source.header: false "
            "(or source.column, if it is a name)"
        )
    return names


def delimiter_of(name: str) -> str:
    """What stands between the cells of a CSV file of that name."""
    return "\t" if name.lower().removesuffix(".gz").endswith(".tsv") else ","


def _from_text(file: TableFile, shape: Shape) -> Iterator[RawRow]:
    if shape.keep_columns:
        raise SourceError(f"{file.name} is plain text without columns; take source.keep_columns out, or use CSV")
    with file.stream() as stream:
        for line in text_lines(stream, file.name):
            yield line, ()


def _from_csv(file: TableFile, shape: Shape) -> Iterator[RawRow]:
    with file.stream() as stream:
        rows = csv_rows(stream, file.name, delimiter_of(file.name))
        first = next(rows, None)
        if first is None and not shape.header:
            return
        columns = shape.columns(csv_names(first, file.name, shape), file.name)
        for row in rows if shape.header or first is None else chain([first], rows):
            kept = [_cell(row, index) for index in columns.kept] if columns.kept else ()
            yield _cell(row, columns.main), kept


def _from_parquet(file: TableFile, shape: Shape) -> Iterator[RawBatch]:
    with _opened_parquet(file) as table:
        names = table.schema_arrow.names
        columns = shape.columns(names, file.name)
        batches = table.iter_batches(batch_size=READ_ROWS, columns=_wanted(names, columns))
        yield from arrow_batches(batches, names, columns, file.name)


def parquet_schema(file: TableFile) -> pa.Schema:
    """The columns of a Parquet file.

    Raises:
        SourceError: it is damaged.
        OSError: it can't be read.
    """
    with _opened_parquet(file) as table:
        return table.schema_arrow


def check_parquet(file: TableFile) -> None:
    """Read all of a Parquet file.

    Raises:
        SourceError: it is damaged.
        OSError: it can't be read.
    """
    with _opened_parquet(file) as table:
        for _ in table.iter_batches(batch_size=READ_ROWS):
            pass


@contextmanager
def _opened_parquet(file: TableFile) -> Iterator[pq.ParquetFile]:
    try:
        with file.random() as opened, pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES) as table:
            yield table
    except pa.ArrowException as error:
        raise SourceError(f"{file.name} can't be read as Parquet ({_first_line(error)}): write it again") from error


def _wanted(names: Sequence[str], columns: Columns) -> list[str]:
    return list(dict.fromkeys(names[index] for index in (columns.main, *columns.kept)))


def _cell(row: list[str], index: int) -> str | None:
    """A row that ends early has nulls there."""
    return row[index] if index < len(row) else None


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
