"""A query on objects on S3: DuckDB sees them as the view `source`, and nothing else of this machine or of S3."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.fs as pafs

from backfill_dagster.aws import arrow_problem_text
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.arrow_values import READ_ROWS, arrow_batches
from backfill_dagster.sources.base import RawBatch
from backfill_dagster.sources.columns import find_columns
from backfill_dagster.sources.s3_objects import S3Format
from backfill_dagster.sources.tables import Shape, delimiter_of
from backfill_dagster.store.duckdb_paths import literal_path
from backfill_dagster.store.s3_filesystem import S3Files

MEMORY_LIMIT = "512MB"

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",  # a query must not reach for the internet
    "memory_limit": MEMORY_LIMIT,
    "python_enable_replacements": "false",  # nor for this program's own variables
    "TimeZone": "UTC",
}

_OF_THE_QUERY = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)
_KEY = re.compile(r"key '(.+?)' in bucket '(.+?)'")
"""Of pyarrow's S3 client."""

_SAID_MAX = 300


@dataclass(frozen=True, slots=True)
class ObjectsView:
    """What the query is about.

    Attributes:
        name: address that names the objects, for errors.
        uris: of the objects.
        file_format: of the objects.
        csv_names: names of the columns of CSV without a header; None: there is a header, or it isn't CSV.
    """

    name: str
    uris: Sequence[str]
    file_format: S3Format
    csv_names: Sequence[str] | None = None

    def sql(self) -> str:
        """SELECT of all rows. Values of CSV are text: a DID is no number, and neither is the kept `007`."""
        if self.file_format == "parquet":
            return f"FROM read_parquet({_list(map(literal_path, self.uris))}, union_by_name = true)"
        by_delimiter: dict[str, list[str]] = {}
        for uri in self.uris:
            by_delimiter.setdefault(delimiter_of(uri), []).append(literal_path(uri))
        how = "header = true, union_by_name = true"
        if self.csv_names is not None:
            how = f"header = false, names = {_list(self.csv_names)}"
        return " UNION ALL BY NAME ".join(
            f"FROM read_csv({_list(uris)}, {how}, all_varchar = true, delim = {_text(delimiter)}, "
            "quote = '\"', escape = '\"', null_padding = true)"
            for delimiter, uris in by_delimiter.items()
        )


def query_batches(
    query: str, view: ObjectsView, shape: Shape, filesystem: Callable[[], pafs.S3FileSystem]
) -> Iterator[RawBatch]:
    """The rows of the query's result, streamed. What DuckDB can't keep in memory goes to a temporary folder.

    Args:
        query: one SELECT.
        view: what it is about.
        shape: which columns of the result are wanted.
        filesystem: pyarrow's, with credentials that are good at that moment.

    Raises:
        SourceError: the query or an object is wrong.
    """
    where = f"source.query for {view.name}"
    with _database() as database, _duckdb_errors(where, view):
        _check_is_one_select(database, query, where)
        database.register_filesystem(S3Files(filesystem))
        database.execute(f"CREATE VIEW source AS {view.sql()}")
        # Asked for as patterns, opened as they are.
        allowed = dict.fromkeys([*view.uris, *map(literal_path, view.uris)])
        database.execute(f"SET allowed_paths = {_list(list(allowed))}")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        result = database.sql(query).to_arrow_reader(READ_ROWS)
        columns = find_columns(
            result.schema.names,
            column=shape.column,
            default=shape.default_column,
            keep_columns=shape.keep_columns,
            where=where,
            remedy="name one of them in the query, or set source.column",
        )
        yield from arrow_batches(result, result.schema.names, columns, where)


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    with (
        tempfile.TemporaryDirectory(prefix="backfill-source-", ignore_cleanup_errors=True) as spill,
        closing(duckdb.connect(config=_CONFIG | {"temp_directory": spill})) as database,
    ):
        database.execute("SET enable_progress_bar = false")
        yield database


def _check_is_one_select(database: duckdb.DuckDBPyConnection, query: str, where: str) -> None:
    statements = database.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError(f"{where} has to be one single SELECT on the table `source`; correct it")


@contextmanager
def _duckdb_errors(where: str, view: ObjectsView) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        said = " ".join(str(error).partition("\n\nLINE ")[0].split())[:_SAID_MAX].rstrip(".")
        key = _KEY.search(str(error))
        of_s3 = arrow_problem_text(error, f"read {f's3://{key[2]}/{key[1]}' if key else view.name}")
        if of_s3 is not None:
            raise SourceError(of_s3) from error
        if isinstance(error, duckdb.PermissionException):
            raise SourceError(f"{where} may read nothing but the table `source` (DuckDB says: {said})") from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise SourceError(
                f"{where} needs more than {MEMORY_LIMIT} of memory, or a larger temporary folder (TMPDIR): "
                f"make it simpler (DuckDB says: {said})"
            ) from error
        if isinstance(error, _OF_THE_QUERY):
            raise SourceError(f"{where} fails: {said}; correct the query") from error
        raise SourceError(
            f"{where} fails: {said}; correct the query, or the object if it is damaged or not like the others"
        ) from error


def _list(texts: Sequence[str] | map[str]) -> str:
    return "[" + ", ".join(map(_text, texts)) + "]"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
