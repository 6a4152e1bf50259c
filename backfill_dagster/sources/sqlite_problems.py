"""What SQLite's errors mean for a person: one line with the file, what is wrong and the remedy."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from backfill_dagster.errors import SourceError
from backfill_dagster.sources.columns import name_list

_REMEDIES = {
    "SQLITE_NOTADB": "is not a SQLite database; correct source.path or source.type",
    "SQLITE_BUSY": "is locked by another process; let that finish, or copy the database, and try again",
    "SQLITE_LOCKED": "is locked by another process; let that finish, or copy the database, and try again",
    "SQLITE_CORRUPT": "is damaged; restore it, or recover what is left with `sqlite3 FILE .recover`",
    "SQLITE_CANTOPEN": "can't be opened; check its permissions (in WAL mode its folder has to be writable too)",
    "SQLITE_READONLY": "was left by a writer that died; open it once with write access (`sqlite3 FILE .tables`)",
    "SQLITE_IOERR": "can't be read: the disk reports a fault; check the disk (dmesg)",
    "SQLITE_PERM": "can't be read by this user; change its permissions",
}

_TABLES_SHOWN = 20


def sqlite_problem(
    error: sqlite3.Error | sqlite3.Warning, path: Path, connection: sqlite3.Connection | None
) -> SourceError:
    """The one line for an error of opening `path` or of running its query.

    Args:
        error: what SQLite or its Python module raised.
        path: the database.
        connection: open connection, asked for the tables there are; None when opening failed.
    """
    name = getattr(error, "sqlite_errorname", None) or ""
    for code, remedy in _REMEDIES.items():
        if name.startswith(code):
            return SourceError(f"{path} {remedy} (SQLite says: {error})")
    where = f"source.query for {path}"
    if name == "SQLITE_AUTH" or "not authorized" in str(error) or "one statement" in str(error):
        return SourceError(f"{where} has to be one single SELECT that only reads (SQLite says: {error})")
    if str(error).startswith(("no such table", "no such column")) and connection is not None:
        return SourceError(f"{where}: {error}; {_tables(connection)}; correct source.query")
    return SourceError(f"{where} fails: {error}; correct the query")


def _tables(connection: sqlite3.Connection) -> str:
    connection.set_authorizer(None)
    try:
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
            "ORDER BY name"
        ).fetchmany(_TABLES_SHOWN + 1)
        if not names:
            return "the database has no tables"
        described = [_described(connection, str(row[0])) for row in names[:_TABLES_SHOWN]]
    except sqlite3.Error as error:  # the query's own error matters more than why the list can't be made
        return f"its tables can't be listed ({error})"
    more = " and more" if len(names) > _TABLES_SHOWN else ""
    return f"tables: {', '.join(described)}{more}"


def _described(connection: sqlite3.Connection, table: str) -> str:
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
    return f"{name_list([table])}({name_list([str(row[0]) for row in columns])})"
