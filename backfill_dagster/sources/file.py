"""A source in a local file: CSV, Parquet, or plain text with one account a line. How it is read is in `tables`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from backfill_dagster.config.sources import FileFormat
from backfill_dagster.sources.base import RawBatch, RowCounts, SourceRow, clean_batches
from backfill_dagster.sources.local_path import check_file, file_version, unreadable
from backfill_dagster.sources.tables import Shape, TableFile, read_batches


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
        self._shape = Shape(column, header, tuple(keep_columns), default_column)

    def rows(self, counts: RowCounts | None = None) -> Iterator[SourceRow]:
        """The file's rows; see `Source.rows`."""
        return clean_batches(self._batches(), self._shape.keep_columns, counts)

    def describe(self) -> str:
        """Path and format."""
        return f"{self._path} ({self._format})"

    def version(self) -> str:
        """Digest of the file, or size and time of change of a big one."""
        return file_version(self._path)

    def _batches(self) -> Iterator[RawBatch]:
        check_file(self._path)
        file = TableFile(str(self._path), lambda: self._path.open("rb"), lambda: nullcontext(self._path))
        try:
            yield from read_batches(file, self._format, self._shape)
        except OSError as error:
            raise unreadable(self._path, error) from error
