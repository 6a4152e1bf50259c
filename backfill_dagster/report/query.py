"""SQL over a backfill's live rows (`backfill query`): exact also while runs and rewrites go on, or an error.

Each attempt reads plan and logs anew (`query_shards.py`) and asks a DuckDB of its own (`query_tables.py`,
`query_views.py`). Parts never change, they only vanish, so what was read is what the logs said: when one is gone in the
middle, the attempt counts for nothing. How an answer is shown is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import duckdb

from backfill_dagster.errors import BackfillError, ObjectMissingError, StateError, UsageError
from backfill_dagster.model import Wanted
from backfill_dagster.plan import PlanStore
from backfill_dagster.report.query_database import empty_database, interruptible
from backfill_dagster.report.query_shards import OvertakenError, live_shards
from backfill_dagster.report.query_tables import ACCOUNT_TABLES, AccountTables
from backfill_dagster.report.query_views import RecordViews
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState

ATTEMPTS_MAX = 5

VIEWS_NAMED_MAX = 20

_FETCHED_AT_ONCE = 1000

_SAID_MAX = 500

_LISTS_NAMES = re.compile(r"\b(show|describe|pragma)\b|schema|duckdb_|sqlite_|pg_", re.IGNORECASE)
"""SQL that may ask which views there are, instead of naming one."""

_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t][^\n]*\n)*(.*)", re.DOTALL)
"""How DuckDB hands on what went wrong in the file system that it was given; at the end, the exception."""

T = TypeVar("T")

Row = tuple[Any, ...]
Take = Callable[[Sequence[str], Iterator[Row]], T]


def run_query(state: BackfillState, sql: str, take: Take[T]) -> T:
    """Ask the live rows.

    Args:
        state: the backfill; only read.
        sql: DuckDB's SQL; of several statements the last one's rows count.
        take: gets the names of the columns and the rows as DuckDB's Python values, streamed; in a thread of its own.
            It is called once per attempt, so what it made of rows that ended in an exception is to be thrown away.

    Returns:
        What `take` returned.

    Raises:
        UsageError: DuckDB can't run the SQL.
        StateError: plan, a log or a part is missing or can't be read; or the state changed in every attempt.
        SourceError: a filter's list can't be read (it decides which outcomes answer to the config).
    """
    missing = ""
    for _ in range(ATTEMPTS_MAX):
        try:
            return _attempt(state, sql, take)
        except OvertakenError:
            missing = ""
        except ObjectMissingError as error:
            # Missing under two readings of the log, the second one after it was missed: no rewrite takes a live part.
            if str(error) == missing:
                raise
            missing = str(error)
    raise StateError(
        f"{state.store.uri} changed in each of {ATTEMPTS_MAX} attempts to read it: try again when the runs there are "
        "done, or have rewritten what they had to"
    )


def _attempt(state: BackfillState, sql: str, take: Take[T]) -> T:
    is_wanted = _named_in(sql)
    with empty_database(state.store) as database:
        accounts = AccountTables(database, lambda: _wanted(state), [one for one in ACCOUNT_TABLES if is_wanted(one)])
        shards = live_shards(state, accounts.add)
        views = RecordViews(database, state.store, shards, state.config)
        try:
            return interruptible(database, lambda: _answer(database, views, is_wanted, sql, take))
        except duckdb.Error as error:
            if not views.check_places():
                raise OvertakenError from error
            raise _explained(error, state, [*ACCOUNT_TABLES, *views.names]) from error


def _answer(
    database: duckdb.DuckDBPyConnection, views: RecordViews, is_wanted: Callable[[str], bool], sql: str, take: Take[T]
) -> T:
    views.create(is_wanted)
    result = database.execute(sql)
    if result is None or result.description is None:
        raise UsageError("there is no SQL statement to run")
    return take([column[0] for column in result.description], _rows(result))


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    while rows := result.fetchmany(_FETCHED_AT_ONCE):
        yield from rows


def _named_in(sql: str) -> Callable[[str], bool]:
    """Whether a name may be meant somewhere in the SQL; one too many costs time only."""
    text = sql.lower()
    may_list = _LISTS_NAMES.search(text) is not None
    return lambda name: may_list or name.lower() in text


def _wanted(state: BackfillState) -> Wanted:
    return Wanted(load_selection(state.config).scope, PlanStore(state.store).read().refresh)


def _explained(error: duckdb.Error, state: BackfillState, names: Sequence[str]) -> BackfillError:
    said = _line(error)
    if (problem := state.store.read_problem(error, "records")) is not None:
        return problem
    if _TRACEBACK.match(str(error)):
        return StateError(f"can't read {state.store.uri}: {said}")
    if state.store.uri in str(error):
        return StateError(f"{said}; `backfill verify {state.config.path}` says what is damaged")
    if isinstance(error, duckdb.OutOfMemoryException):
        return BackfillError(f"{said}; ask for fewer columns or rows at once, or give it more memory or temporary disk")
    if isinstance(error, duckdb.CatalogException) and said.startswith("Catalog Error: Table with name"):
        more = f" and {len(names) - VIEWS_NAMED_MAX} more" if len(names) > VIEWS_NAMED_MAX else ""
        return UsageError(f"{said}; there are {', '.join(names[:VIEWS_NAMED_MAX])}{more}")
    return UsageError(said)


def _line(error: duckdb.Error) -> str:
    """What DuckDB says first, on one line; a record's text can be in it, so what a terminal would obey is not."""
    text = str(error)
    if (trace := _TRACEBACK.match(text)) is not None:
        text = trace[1]
    said = " ".join(re.split(r"\n\n|\nDid you mean", text)[0].split())
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", said)[:_SAID_MAX].rstrip("!")
