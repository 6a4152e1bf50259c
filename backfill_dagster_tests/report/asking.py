"""What the tests of `backfill query` share: asking, what the answer has to be, and a store that lets a test step in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backfill_dagster.report.query import Row, run_query
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.worker.tiny import Rows, rows_in

TYPES = ("post", "reply", "repost", "like", "follow", "block", "app.bsky.actor.profile")


def ask(state: BackfillState, sql: str) -> list[Row]:
    return run_query(state, sql, lambda columns, rows: list(rows))


def ask_one(state: BackfillState, sql: str) -> Any:
    ((value,),) = ask(state, sql)
    return value


def live_rows(state: BackfillState, types: Sequence[str] = TYPES) -> Rows:
    """(URI, CID, record type) through the views of these types; no URI twice."""
    found = ask(state, " UNION ALL ".join(f"SELECT uri, cid, '{name}' FROM \"{name}\"" for name in types))
    assert len({row[0] for row in found}) == len(found), "a URI is there twice"
    return {(uri, cid, name) for uri, cid, name in found}


def glob_rows(state: BackfillState, types: Sequence[str] = TYPES) -> Rows:
    """The same by a plain glob over the files, which is exact while nobody writes."""
    return {row for row in rows_in(state) if row[2] in types}


class WatchedStore:
    """Calls `step` with the operation and its key or prefix: `list` before it is done, `find` after it."""

    def __init__(self, store: Any, step: Callable[[str, str], None]) -> None:
        self._store, self._step = store, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, prefix: str) -> Any:
        self._step("list", prefix)
        return self._store.list(prefix)

    def find(self, key: str) -> str:
        place = str(self._store.find(key))
        self._step("find", key)
        return place


@dataclass
class Watch:
    """Lets something happen in the middle of a query.

    Attributes:
        is_moment: whether an operation of the store is the moment.
        meanwhile: what happens then, in the event loop, while the query waits; once in an attempt.
        times: how often, at most.
        attempts: how often the query has listed the logs.
    """

    is_moment: Callable[[str, str], bool]
    meanwhile: Callable[[], Coroutine[Any, Any, Any]]
    times: int = 1
    attempts: int = 0
    _happened: set[int] = field(default_factory=set)

    async def ask(self, state: BackfillState, ask: Callable[[BackfillState], Any] = live_rows) -> Any:
        """The answer of a query in a thread."""
        loop = asyncio.get_running_loop()

        def step(operation: str, key: str) -> None:
            self.attempts += (operation, key) == ("list", "log/")
            is_due = len(self._happened) < self.times and self.attempts not in self._happened
            if is_due and self.is_moment(operation, key):
                self._happened.add(self.attempts)
                asyncio.run_coroutine_threadsafe(self.meanwhile(), loop).result(60)

        answer = await asyncio.to_thread(ask, replace(state, store=WatchedStore(state.store, step)))
        assert self._happened, "the moment never came"
        return answer
