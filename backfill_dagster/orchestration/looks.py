"""Looks at a source or a state, for sensors and schedules: over in time, whoever doesn't answer.

Dagster gives up on a tick after a minute, and what the tick was doing goes on in the code server, which has few threads
for all it is asked. So a look has a thread of its own, and nobody begins a second one while the first still waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from backfill_dagster.errors import StateError
from backfill_dagster.ledger.in_time import in_time

T = TypeVar("T")

LOOK_SECONDS = 45.0
"""How long a tick waits for its look; Dagster gives up on a tick after 60 s."""

_under_way: set[str] = set()
_changing = threading.Lock()


class NoAnswerError(StateError):
    """Nobody has answered in time; who, is known only to the look, which ends by itself some minutes later."""


def look(what: str, work: Callable[[], T]) -> T:
    """What the work returns or raises.

    Args:
        what: is looked at: `the source of study`. There is one look at it at a time.
        work: for any thread.

    Raises:
        NoAnswerError: it hasn't ended in time, or an earlier one still hasn't.
    """
    with _changing:
        if what in _under_way:
            raise NoAnswerError(f"an earlier look at {what} still waits for an answer; see that it can be reached")
        _under_way.add(what)

    def do() -> tuple[T]:
        try:
            return (work(),)
        finally:
            with _changing:
                _under_way.discard(what)

    found = in_time(do, LOOK_SECONDS, name=f"look at {what}")
    if found is None:
        raise NoAnswerError(f"{what} has not answered within {LOOK_SECONDS:g} s; see that it can be reached")
    return found[0]
