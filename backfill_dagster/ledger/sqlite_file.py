"""One SQLite file of ours: opened when it is first needed, created only by writing, its errors said in one line each.

What tables it has is the business of `sqlite.py` and `sqlite_leases.py`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backfill_dagster.errors import StateError

BUSY_SECONDS = 30.0
"""How long a writer waits for another one; eight processes on one file were seen to need 2.2 s at worst."""

_WAL_TRIES = 1000

Row = tuple[Any, ...]


class SqliteFile:
    """A SQLite file in WAL mode with `synchronous=FULL`, for use from any thread.

    Attributes:
        path: the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: str,
        kind: str,
        version: int,
        remedy: str,
        read_only: bool = False,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Touches no disk.

        Args:
            path: the file.
            schema: `CREATE ... IF NOT EXISTS` statements.
            kind: what the file is; written into it, so that another kind of file is told apart.
            version: the schema's.
            remedy: what a person does about a file that can't be used.
            read_only: never write, and read from folders that can't be written too.
            sleep: waits between two tries to set up a file that others are setting up.
        """
        self.path = path
        self._schema = schema
        self._kind = kind
        self._version = version
        self._remedy = remedy
        self._read_only = read_only
        self._sleep = sleep
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query; none when the file doesn't exist, which stays so."""
        with self._lock, self._said():
            connection = self._opened(create=False)
            return [] if connection is None else connection.execute(query, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction (BEGIN IMMEDIATE), flushed to the medium at the end, undone by any exception."""
        if self._read_only:
            raise StateError(f"{self.path} was opened to be read only; nothing was written")
        with self._lock, self._said():
            connection = self._opened(create=True)
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row, all in one transaction."""
        with self.transaction() as connection:
            connection.executemany(statement, rows)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _opened(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is not None:
            return self._connection
        if not create and not self._exists():
            return None
        connection = self._connect()
        try:
            ready = self._is_ours(connection, create=create)
        except BaseException:
            connection.close()
            raise
        if not ready:
            connection.close()
            return None
        self._connection = connection
        return connection

    def _exists(self) -> bool:
        try:
            return self.path.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StateError(f"can't look at {self.path}: {error.strerror}; make its folder readable") from error

    def _connect(self) -> sqlite3.Connection:
        if self._read_only:
            return self._connect_read_only()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"can't create the folder {self.path.parent}: {error.strerror}; make it writable for this user"
            ) from error
        return self._connect_to(str(self.path))

    def _connect_read_only(self) -> sqlite3.Connection:
        """SQLite needs to write a -shm file to read in WAL mode; where it can't, nobody else writes there either."""
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        connection = self._connect_to(uri)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            return self._connect_to(f"{uri}&immutable=1")
        return connection

    def _connect_to(self, database: str) -> sqlite3.Connection:
        return sqlite3.connect(
            database,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            uri=database.startswith("file:"),
        )

    def _is_ours(self, connection: sqlite3.Connection, *, create: bool) -> bool:
        """True when the file can be used; False when it is empty and is to stay so; StateError when it is foreign."""
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "about" not in tables:
            raise StateError(f"{self.path} is another program's SQLite file, not a {self._kind}; {self._remedy}")
        if not tables and not create:
            return False
        if not self._read_only:
            self._switch_to_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
        if not tables:
            self._create(connection)
        found = dict(connection.execute("SELECT name, value FROM about").fetchall())
        if found.get("kind") != self._kind:
            raise StateError(f"{self.path} is a {found.get('kind')}, not a {self._kind}; {self._remedy}")
        if found.get("schema_version") != str(self._version):
            raise StateError(
                f"{self.path} has schema version {found.get('schema_version')}, this version of backfill-dagster "
                f"reads {self._version}; use the version that wrote it, or: {self._remedy}"
            )
        return True

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """Of several processes that create a file at once all but one are told "locked" here, whatever the timeout."""
        for tries_left in reversed(range(_WAL_TRIES)):
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not tries_left or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            self._sleep(BUSY_SECONDS / _WAL_TRIES)

    def _create(self, connection: sqlite3.Connection) -> None:
        """All tables in one transaction; of two processes that come here at once the second finds them made."""
        about = [("kind", self._kind), ("schema_version", str(self._version))]
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            for statement in self._schema.split(";\n"):
                connection.execute(statement)
            connection.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(f"{self.path}: {error}; {self._remedy_for(error)}") from error

    def _remedy_for(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._remedy
        return _REMEDIES.get(code, "see what the system log says about that disk, then start again")


_REMEDIES = {
    sqlite3.SQLITE_FULL: "free space on that disk and start again",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable for this user",
    sqlite3.SQLITE_CANTOPEN: "make the file and its folder writable for this user",
    sqlite3.SQLITE_PERM: "make the file and its folder writable for this user",
    sqlite3.SQLITE_BUSY: f"another process has been writing for {BUSY_SECONDS:.0f} s: find it, then start again",
    sqlite3.SQLITE_LOCKED: f"another process has been writing for {BUSY_SECONDS:.0f} s: find it, then start again",
    sqlite3.SQLITE_IOERR: "the disk reports a fault: check it (and that it is no network file system), start again",
}
