"""A source in a local file: CSV, Parquet, or plain text with one account a line; read in batches.

How lines are cut and decoded is in `delimited`, which columns are meant in `columns`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.atproto.handle import is_handle
from backfill_dagster.config.sources import FileFormat
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.base import RawRow, RowCounts, SourceRow, clean_rows
from backfill_dagster.sources.columns import Columns, find_columns, name_list
from backfill_dagster.sources.delimited import csv_rows, text_lines
from backfill_dagster.sources.local_path import check_file, file_version, unreadable

_BATCH_ROWS = 16_384


class FileSource:
    """One local file.

    Args:
        path: the file.
        format: what it holds. CSV and text may be gzipped; CSV named `.tsv` is cut at tabs.
        column: name of the DID column; None: `default_column`, or the only one. A CSV file without a header has
            `column0`, `column1`, ...; text has none.
        header: whether a CSV file's first line names the columns.
        keep_columns: more columns to carry along.
        default_column: the name that is expected when the config says nothing.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: FileFormat,
        column: str | None = None,
        header: bool = True,
        keep_columns: Sequence[str] = (),
        default_column: str = "did",
    ) -> None:
        self._path = path
        self._format = format
        self._column = column
        self._header = header
        self._keep_columns = tuple(keep_columns)
        self._default_column = default_column

    def rows(self, counts: RowCounts | None = None) -> Iterator[SourceRow]:
        """The file's rows; see `Source.rows`."""
        check_file(self._path)
        readers = {"csv": self._from_csv, "parquet": self._from_parquet, "text": self._from_text}
        yield from clean_rows(readers[self._format](), self._keep_columns, counts)

    def describe(self) -> str:
        """Path and format."""
        return f"{self._path} ({self._format})"

    def version(self) -> str:
        """Digest of the file, or size and time of change of a big one."""
        return file_version(self._path)

    def _columns(self, found: Sequence[str]) -> Columns:
        return find_columns(
            found,
            column=self._column,
            default=self._default_column,
            keep_columns=self._keep_columns,
            where=str(self._path),
            remedy="set source.column",
        )

    def _from_text(self) -> Iterator[RawRow]:
        if self._keep_columns:
            raise SourceError(f"{self._path} is plain text without columns; take source.keep_columns out, or use CSV")
        for line in text_lines(self._path):
            yield line, ()

    def _from_csv(self) -> Iterator[RawRow]:
        tabs = self._path.name.lower().removesuffix(".gz").endswith(".tsv")
        rows = csv_rows(self._path, "\t" if tabs else ",")
        first = next(rows, None)
        if first is None:
            if self._header:
                raise SourceError(f"{self._path} is empty: a CSV file needs at least its header line")
            return
        columns = self._columns(self._csv_names(first))
        for row in rows if self._header else chain([first], rows):
            yield _cell(row, columns.main), [_cell(row, index) for index in columns.kept]

    def _csv_names(self, first: list[str]) -> list[str]:
        if not self._header:
            return [f"column{index}" for index in range(len(first))]
        names = [name.strip() for name in first]
        # A list of handles has nothing else to tell it by; who really has such a name for a column can say so.
        is_handle_list = self._column is None and len(names) == 1 and is_handle(names[0])
        if is_handle_list or any(name.startswith(("did:", "at://")) for name in names):
            raise SourceError(
                f"{self._path}: the first line is data, not a header ({name_list(names)}); set source.header: false "
                "(or source.column, if it is a name)"
            )
        return names

    def _from_parquet(self) -> Iterator[RawRow]:
        try:
            with pq.ParquetFile(self._path) as file:
                names = file.schema_arrow.names
                columns = self._columns(names)
                wanted = list(dict.fromkeys(names[index] for index in (columns.main, *columns.kept)))
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                    values = {name: self._values(name, batch.column(name)) for name in wanted}
                    kept = [values[names[index]] for index in columns.kept]
                    for index, value in enumerate(values[names[columns.main]]):
                        yield value, [one[index] for one in kept]
        except pa.ArrowException as error:
            raise SourceError(
                f"{self._path} can't be read as Parquet ({_first_line(error)}): write it again"
            ) from error
        except OSError as error:
            raise unreadable(self._path, error) from error

    def _values(self, name: str, array: pa.Array) -> list[object]:
        try:
            values: list[object] = _as_bytes_or_text(array).to_pylist()
        except pa.ArrowNotImplementedError as error:
            raise SourceError(f"{self._path}, column {name!r} holds {array.type}, not text: name another") from error
        return values


def _as_bytes_or_text(array: pa.Array) -> pa.Array:
    """Text comes as bytes, since a Parquet file can claim that anything is UTF-8; numbers and times come as text."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _as_bytes_or_text(array.dictionary_decode())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.large_binary())
    return array if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else array.cast(pa.string())


def _cell(row: list[str], index: int) -> str | None:
    """A row that ends early has nulls there."""
    return row[index] if index < len(row) else None


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
