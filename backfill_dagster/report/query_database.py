"""The DuckDB that a query runs in: in memory, of one attempt, with nothing in it yet; and how Arrow gets into it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import duckdb
import pyarrow as pa

from backfill_dagster.store import ObjectStore

T = TypeVar("T")

INTERNAL = "internal"
"""Schema of the tables that views need and nobody asks for."""

_INTERRUPT_SECONDS = 0.1

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",  # a query must not reach for the internet
    "TimeZone": "UTC",
}


@contextmanager
def empty_database(store: ObjectStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for the block that can read a store's files; what memory can't hold goes to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="backfill-query-", ignore_cleanup_errors=True) as spill:
        database = duckdb.connect(config=_CONFIG | {"temp_directory": spill})
        try:
            database.execute("SET enable_progress_bar = false")  # it would be printed among the answers
            if (filesystem := store.duckdb_filesystem()) is not None:
                database.register_filesystem(filesystem)
            database.execute(f"CREATE SCHEMA {INTERNAL}")
            yield database
        finally:
            database.close()


def interruptible(database: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Do work on the database in a thread, so that a Ctrl-C ends it: DuckDB itself misses one now and then."""
    with ThreadPoolExecutor(1, "query") as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():  # an interrupt between two statements is lost
                database.interrupt()
                wait([future], timeout=_INTERRUPT_SECONDS)
            raise


def run_on_rows(database: duckdb.DuckDBPyConnection, statement: str, rows: pa.Table) -> None:
    """Run a statement that ends with the name of what it reads: these rows.

    Args:
        database: where.
        statement: `CREATE TABLE x AS FROM`, or the like.
        rows: Arrow table.
    """
    database.register("incoming", rows)
    try:
        database.execute(f"{statement} incoming")
    finally:
        database.unregister("incoming")


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def text_list(texts: Sequence[str]) -> str:
    """A list of texts as SQL takes it."""
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"
