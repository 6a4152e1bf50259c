"""A local network in a thread of its own: Dagster's ops are synchronous and run event loops themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from backfill_dagster.localnet import LocalnetOptions, LocalNetwork

T = TypeVar("T")


class ThreadedNetwork:
    """A network and the loop it lives on."""

    def __init__(self, network: LocalNetwork, loop: asyncio.AbstractEventLoop) -> None:
        self.network = network
        self._loop = loop

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the network's loop and wait for it."""
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(30)


@contextmanager
def threaded_network(options: LocalnetOptions) -> Iterator[ThreadedNetwork]:
    """Start a network; stop it and its thread at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="localnet", daemon=True)
    thread.start()
    threaded = ThreadedNetwork(LocalNetwork(options), loop)
    try:
        threaded.do(threaded.network.__aenter__())
        try:
            yield threaded
        finally:
            threaded.do(threaded.network.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
