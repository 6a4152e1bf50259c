"""A source on S3: CSV or Parquet in one object or many, read one after the other, or asked a query.

Which objects an address names is in `s3_objects`, how their content is read in `tables`, queries are in `s3_query`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from backfill_dagster.aws import AwsPlace, arrow_problem_text
from backfill_dagster.aws.arrow import ArrowS3
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.base import RawBatch, RowCounts, SourceRow, clean_batches
from backfill_dagster.sources.s3_objects import S3Address, S3Format, S3Object, find_objects, format_of
from backfill_dagster.sources.s3_query import ObjectsView, query_batches
from backfill_dagster.sources.tables import Shape, TableFile, csv_header, read_batches

_BUFFER_BYTES = 8 * 1024 * 1024
"""Of a CSV object, asked for at a time."""


class S3Source:
    """One object, or all that a prefix or glob names, in the order of their keys.

    Args:
        path: `s3://bucket/key`, `s3://bucket/prefix/` or a glob.
        place: region and endpoint.
        format: what the objects hold; None: by their suffixes. CSV may be gzipped; CSV named `.tsv` is cut at tabs.
        column: name of the DID column; None: `default_column`, or the only one. CSV without a header has `column0`,
            `column1`, ...
        query: one SELECT in DuckDB's SQL on the view `source`; the columns are then those of its result.
        header: whether the first line of a CSV object names the columns.
        keep_columns: more columns to carry along.
        default_column: the name that is expected when the config says nothing.
    """

    def __init__(
        self,
        path: str,
        place: AwsPlace,
        *,
        format: S3Format | None = None,
        column: str | None = None,
        query: str | None = None,
        header: bool = True,
        keep_columns: Sequence[str] = (),
        default_column: str = "did",
    ) -> None:
        self._path = path
        self._place = place
        self._format = format
        self._query = query
        self._shape = Shape(column, header, tuple(keep_columns), default_column)
        self._arrow = ArrowS3(place)

    def rows(self, counts: RowCounts | None = None) -> Iterator[SourceRow]:
        """The objects' rows, or the query's; see `Source.rows`."""
        return clean_batches(self._batches(), self._shape.keep_columns, counts)

    def describe(self) -> str:
        """Address, and format or query where the config gives one."""
        more = " ".join(self._query.split()) if self._query else self._format
        return f"{self._path} ({more})" if more else self._path

    def version(self) -> str:
        """Digest of the keys, sizes and ETags of the objects."""
        digest = hashlib.sha256()
        for one in find_objects(S3Address.of(self._path), self._place):
            digest.update(f"{one.key}\0{one.size}\0{one.etag}\0".encode())
        return f"s3:{digest.hexdigest()}"

    def _batches(self) -> Iterator[RawBatch]:
        address = S3Address.of(self._path)
        objects = find_objects(address, self._place)
        file_format = self._format or format_of(objects, address)
        if self._query is None:
            for one in objects:
                yield from self._read(self._file(address, one), file_format)
        else:
            yield from self._ask(self._query, address, objects, file_format)

    def _read(self, file: TableFile, file_format: S3Format) -> Iterator[RawBatch]:
        with _readable(file.name):
            yield from read_batches(file, file_format, self._shape)

    def _ask(
        self, query: str, address: S3Address, objects: Sequence[S3Object], file_format: S3Format
    ) -> Iterator[RawBatch]:
        names: list[str] = []
        if file_format == "csv":
            first = self._file(address, objects[0])
            with _readable(first.name):
                names = csv_header(first, self._shape)
        uris = [address.uri(one.key) for one in objects]
        view = ObjectsView(str(address), uris, file_format, None if self._shape.header else names)
        yield from query_batches(query, view, self._shape, self._arrow.filesystem)

    def _file(self, address: S3Address, found: S3Object) -> TableFile:
        name = address.uri(found.key)
        if "//" in f"/{found.key}":
            raise SourceError(f"{name} has an empty part in its key, which can't be read: copy it to another key")

        at = f"{address.bucket}/{found.key}"

        def random() -> Any:
            return self._arrow.filesystem().open_input_file(at)

        @contextmanager
        def stream() -> Iterator[io.BufferedReader]:
            # The buffer that counts is pyarrow's: Python's own is passed by when text is read, 8 KiB at a time.
            filesystem = self._arrow.filesystem()
            with (
                filesystem.open_input_stream(at, compression=None, buffer_size=_BUFFER_BYTES) as opened,
                io.BufferedReader(opened) as buffered,
            ):
                yield buffered

        return TableFile(name, stream, random)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """What goes wrong in the block is about that object."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(f"{name} has gone since it was listed: start again") from error
    except OSError as error:
        said = " ".join(str(error).split())[:200]
        raise SourceError(
            arrow_problem_text(error, f"read {name}") or f"{name} is damaged or cut short ({said}): write it again"
        ) from error
