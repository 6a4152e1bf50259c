"""Being stopped by a signal: once, in order, with what is in hand committed and no child process left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

EXIT_INTERRUPTED = 130
"""As shells say it: 128 and SIGINT's number."""

_STOPPING = b"\nbackfill: stopping; this can take some seconds\n"


def run_stoppable(work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a coroutine; SIGINT and SIGTERM cancel it once, so that it can commit what is in hand and let go.

    Signals after the first are ignored: an impatient second one must not cancel the commit.

    Raises:
        KeyboardInterrupt: it was stopped by a signal.
    """

    async def supervised() -> T:
        task = asyncio.ensure_future(work(*args, **kwargs))
        stopped = False

        def stop() -> None:
            nonlocal stopped
            if not stopped:
                os.write(2, _STOPPING)
                task.cancel()
            stopped = True

        # Signals reach the main thread only; elsewhere cancelling is the caller's business.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop)
        try:
            return await task
        except asyncio.CancelledError:
            if stopped:
                raise KeyboardInterrupt from None
            raise

    return asyncio.run(supervised())


@contextmanager
def stopped_once() -> Iterator[None]:
    """For a block with child processes: the first SIGINT, SIGTERM or SIGHUP ends it, further ones are ignored.

    The children are in sessions of their own, so nobody else would end them: not the terminal that goes away, and
    not a second Ctrl-C in the middle of ending them.

    Raises:
        KeyboardInterrupt: in the block, at the first signal.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]  # nohup

    def stop(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        os.write(2, _STOPPING)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
