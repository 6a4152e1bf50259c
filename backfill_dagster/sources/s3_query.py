"""A query on objects on S3: DuckDB sees them as the view `source`, and nothing else of this machine or of S3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from backfill_dagster.errors import SourceError
from backfill_dagster.sources.alike import AlikeColumns, kind_of
from backfill_dagster.sources.arrow_values import READ_ROWS, arrow_batches
from backfill_dagster.sources.base import RawBatch
from backfill_dagster.sources.columns import find_columns
from backfill_dagster.sources.csv_copy import copy_csv
from backfill_dagster.sources.s3_objects import S3Format, S3Object
from backfill_dagster.sources.s3_reader import S3Reader
from backfill_dagster.sources.tables import Shape, check_parquet, parquet_schema
from backfill_dagster.sources.temporary import no_room_text, temporary_folder
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
_MAY_BE_DAMAGE = (duckdb.Error, duckdb.IOException, duckdb.InvalidInputException, OSError, pa.ArrowInvalid)
"""The last two when it comes by way of Arrow."""

_SAID_MAX = 300


def query_batches(
    query: str, reader: S3Reader, objects: Sequence[S3Object], file_format: S3Format, shape: Shape
) -> Iterator[RawBatch]:
    """The rows of the query's result, streamed. What DuckDB can't keep in memory goes to a temporary folder.

    Args:
        query: one SELECT.
        reader: opens the objects.
        objects: what it is about.
        file_format: of the objects.
        shape: which columns of the result are wanted, and whether CSV has a header.

    Raises:
        SourceError: the query or an object is wrong.
    """
    where = f"source.query for {reader.address}"
    with temporary_folder() as folder, closing(_database(folder)) as database:
        with _duckdb_errors(where, folder):
            _check_is_one_select(database, query, where)
        if file_format == "csv":
            copy = folder / "source.parquet"
            copy_csv(map(reader.reading, objects), shape, copy)
            with _duckdb_errors(where, folder):
                yield from _ask(database, query, [str(copy)], shape, where)
            return
        _check_alike(reader, objects)
        try:
            with _duckdb_errors(where, folder, reader):
                database.register_filesystem(S3Files(reader.arrow.named))
                yield from _ask(database, query, list(map(reader.uri, objects)), shape, where)
        except SourceError as error:
            if not isinstance(error.__cause__, _OF_THE_QUERY):
                _look_for_cause(reader, objects, error)
            raise
        reader.check(objects)


def _look_for_cause(reader: S3Reader, objects: Sequence[S3Object], error: SourceError) -> None:
    """Raise a better error when it is about an object that was replaced, or one that DuckDB doesn't name."""
    if (changed := reader.change(objects)) is not None:
        raise SourceError(changed) from error
    is_named = any(reader.uri(one) in str(error) for one in objects)
    if type(error.__cause__) in _MAY_BE_DAMAGE and not is_named:
        for one in objects:
            with reader.opening(one) as file:
                check_parquet(file)


def _ask(
    database: duckdb.DuckDBPyConnection, query: str, paths: Sequence[str], shape: Shape, where: str
) -> Iterator[RawBatch]:
    """The query's rows, on a database that from then on can't read anything but the paths."""
    # Hive's way of naming folders (`did=2024/`) would put a column of that name in place of the file's own.
    patterns = list(map(literal_path, paths))
    database.execute(f"CREATE VIEW source AS FROM read_parquet({_list(patterns)}, hive_partitioning = false)")
    # Asked for as patterns, opened as they are.
    database.execute(f"SET allowed_paths = {_list(list(dict.fromkeys([*paths, *patterns])))}")
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


def _check_alike(reader: S3Reader, objects: Sequence[S3Object]) -> None:
    def schema(found: S3Object) -> pa.Schema:
        with reader.opening(found) as file:
            return parquet_schema(file)

    alike = AlikeColumns()
    for one, found in zip(objects, reader.each(objects, schema), strict=True):
        alike.check(found.names, list(map(kind_of, found.types)), reader.uri(one))


def _database(folder: Path) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(config=_CONFIG | {"temp_directory": str(folder / "spill")})
    database.execute("SET enable_progress_bar = false")
    return database


def _check_is_one_select(database: duckdb.DuckDBPyConnection, query: str, where: str) -> None:
    statements = database.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError(f"{where} has to be one single SELECT on the table `source`; correct it")


@contextmanager
def _duckdb_errors(where: str, folder: Path, reader: S3Reader | None = None) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        said = " ".join(str(error).partition("\n\nLINE ")[0].split())[:_SAID_MAX].rstrip(".")
        of_s3 = reader and reader.problem_text(error, str(reader.address))
        if text := of_s3 or no_room_text(error, folder):
            raise SourceError(text) from error
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


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, texts)) + "]"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
