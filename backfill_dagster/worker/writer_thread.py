"""The one thread of a run that checks repos, keeps columns and writes: the event loop is never blocked by it.

One thread and not a pool: the columns of a batch are shared by all repos in it, and decoding gains nothing from more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class OnWriter(Protocol):
    """Calls a function on the writer thread, after all that were given before."""

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        """The function's result, or its exception."""
        ...


async def _ended(work: asyncio.Future[Any]) -> None:
    """Wait for the end, however often one is cancelled; an error matters more than that."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    if not work.cancelled() and (error := work.exception()) is not None:
        raise error


@contextmanager
def writer_thread(name: str) -> Iterator[OnWriter]:
    """A writer thread for the block; what was given to it is finished before the block ends."""
    with ThreadPoolExecutor(1, thread_name_prefix=f"writer {name}") as pool:

        async def on_writer(function: Callable[..., T], *arguments: object) -> T:
            work = asyncio.get_running_loop().run_in_executor(pool, partial(function, *arguments))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await _ended(work)  # a commit that has begun is finished while the leases are still held
                raise

        yield on_writer
