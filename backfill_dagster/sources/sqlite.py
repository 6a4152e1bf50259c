"""A source in a SQLite database: opened read-only, asked one SELECT, read row by row.

A write-ahead log beside the database is respected: what its writer has committed is seen. (SQLite then leaves the
`-wal` and `-shm` files that go with one.) What SQLite's errors mean for a person is in `sqlite_problems`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from backfill_dagster.errors import SourceError
from backfill_dagster.sources.base import RawRow, RowCounts, SourceRow, clean_rows
from backfill_dagster.sources.columns import find_columns
from backfill_dagster.sources.local_path import check_file, unreadable
from backfill_dagster.sources.sqlite_problems import sqlite_problem

DEFAULT_QUERY = "SELECT did FROM dids"

_VALUE_MAX_BYTES = 64 * 1024 * 1024
_HEADER_BYTES = 28

_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


class SqliteSource:
    """The rows of one SELECT.

    Args:
        path: the database.
        query: any single SELECT; its DID column is named `default_column`, or is the only one.
        keep_columns: more columns of the query to carry along.
        default_column: name of the column that is wanted, unless there is only one.
        busy_seconds: how long a lock of another process is waited for.
    """

    def __init__(
        self,
        path: Path,
        query: str = DEFAULT_QUERY,
        *,
        keep_columns: Sequence[str] = (),
        default_column: str = "did",
        busy_seconds: float = 10.0,
    ) -> None:
        self._path = path
        self._query = query
        self._keep_columns = tuple(keep_columns)
        self._default_column = default_column
        self._busy_seconds = busy_seconds

    def rows(self, counts: RowCounts | None = None) -> Iterator[SourceRow]:
        """The query's rows; see `Source.rows`. A read transaction is open until the iterator ends."""
        return clean_rows(self._raw_rows(), self._keep_columns, counts)

    def describe(self) -> str:
        """Path and query."""
        return f"{self._path} ({' '.join(self._query.split())})"

    def version(self) -> str:
        """SQLite's own change counter, with size and time of change of the database and of a write-ahead log."""
        check_file(self._path)
        try:
            with self._path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
            found = self._path.stat()
            wal = self._path.with_name(self._path.name + "-wal")
            log = wal.stat() if wal.exists() else None
        except OSError as error:
            raise unreadable(self._path, error) from error
        # Reading a database in WAL mode creates an empty log: that is no change.
        beside = f"{log.st_size}:{log.st_mtime_ns}" if log is not None and log.st_size else "0:0"
        counter = int.from_bytes(header[24:28], "big")
        return f"sqlite:{counter}:{found.st_size}:{found.st_mtime_ns}:{beside}"

    def _raw_rows(self) -> Iterator[RawRow]:
        with self._connected() as connection:
            cursor = connection.execute(self._query)
            if cursor.description is None:
                raise SourceError(f"source.query for {self._path} is empty: write a SELECT, or leave it out")
            columns = find_columns(
                [one[0] for one in cursor.description],
                column=None,
                default=self._default_column,
                keep_columns=self._keep_columns,
                where=f"source.query for {self._path}",
                remedy=f"name one of them in the query: SELECT ... AS {self._default_column}",
            )
            for row in cursor:
                yield row[columns.main], [row[index] for index in columns.kept]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        check_file(self._path)
        uri = self._path.absolute().as_uri() + "?mode=ro"
        connection: sqlite3.Connection | None = None
        try:
            # A generator may be closed by the garbage collector, in whichever thread that runs.
            connection = sqlite3.connect(uri, uri=True, timeout=self._busy_seconds, check_same_thread=False)
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_MAX_BYTES)
            connection.set_authorizer(_authorize)
            yield connection
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise sqlite_problem(error, self._path, connection) from error
        finally:
            if connection is not None:
                with closing(connection):
                    connection.set_authorizer(None)


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite's question about each step of a statement: reading is allowed, ATTACH, PRAGMA and writing aren't.

    Virtual tables (json_each, full-text search) declare themselves by what looks like an UPDATE of sqlite_master and
    ask for one harmless PRAGMA; a real write fails anyway, the database is open read-only.
    """
    is_declaration = action == sqlite3.SQLITE_UPDATE and first == "sqlite_master"
    is_version = action == sqlite3.SQLITE_PRAGMA and first == "data_version" and not second
    return sqlite3.SQLITE_OK if action in _READS or is_declaration or is_version else sqlite3.SQLITE_DENY
