"""Work that nobody can wait for longer than so long: name servers, credentials and hanging servers keep no bound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def in_time(work: Callable[[], T], seconds: float, *, name: str) -> T | None:
    """What the work returns or raises; None when it hasn't ended after so many seconds.

    It goes on by itself then, and holds up no process's end.

    Args:
        work: for any thread.
        seconds: at most.
        name: the thread's.
    """
    done: Future[T] = Future()

    def do() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=do, name=name, daemon=True).start()
    wait([done], seconds)
    return done.result() if done.done() else None
