"""The one thread of a run that checks repos, keeps columns and writes: the event loop is never blocked by it.

One thread and not a pool: the columns of a batch are shared by all repos in it, and decoding gains nothing from more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

T = TypeVar("T")


class OnWriter(Protocol):
    """Calls a function on the writer thread, after all that were given before."""

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        """The function's result, or its exception."""
        ...


@contextmanager
def writer_thread(name: str) -> Iterator[OnWriter]:
    """A writer thread for the block; what was given to it is finished before the block ends."""
    with ThreadPoolExecutor(1, thread_name_prefix=f"writer {name}") as pool:

        async def on_writer(function: Callable[..., T], *arguments: object) -> T:
            return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *arguments))

        yield on_writer
