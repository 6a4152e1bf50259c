"""A source on S3: CSV or Parquet in one object or many, read one after the other, or asked a query.

Which objects an address names is in `s3_objects`, how each is opened in `s3_reader`, how its content is read in
`tables`; queries are in `s3_query`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from backfill_dagster.aws import AwsPlace
from backfill_dagster.aws.arrow import ArrowS3
from backfill_dagster.sources.base import RawBatch, RowCounts, SourceRow, clean_batches
from backfill_dagster.sources.s3_objects import S3Address, S3Format, find_objects, format_of
from backfill_dagster.sources.s3_query import query_batches
from backfill_dagster.sources.s3_reader import S3Reader
from backfill_dagster.sources.tables import Shape, read_batches


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
        reader = S3Reader(address, self._place, self._arrow)
        if self._query is not None:
            yield from query_batches(self._query, reader, objects, file_format, self._shape)
            return
        for one in objects:
            with reader.reading(one) as file:
                yield from read_batches(file, file_format, self._shape)
