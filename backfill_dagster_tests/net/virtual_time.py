"""Time that tests own: `VirtualTime` for many waiters without real input, `InstantTime` beside real servers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from backfill_dagster.effects import Effects

T = TypeVar("T")

START = 1_800_000_000.0


class InstantTime:
    """A clock that sleeping moves forward at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def effects(self, seed: int = 0) -> Effects:
        return Effects(
            clock=lambda: START + self.now,
            monotonic=lambda: self.now,
            sleep=self.sleep,
            random=random.Random(seed),
        )


class VirtualTime:
    """A clock that jumps to the next sleeper's hour whenever everybody sleeps; the same course in every run."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), future))
        await future

    def effects(self, seed: int = 0) -> Effects:
        return Effects(
            clock=lambda: START + self.now,
            monotonic=lambda: self.now,
            sleep=self.sleep,
            random=random.Random(seed),
        )

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        while True:
            await self._settle()
            if task.done():
                return task.result()
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            assert self._sleepers, "everybody waits and nobody sleeps: a deadlock"
            self.now, _, future = heapq.heappop(self._sleepers)
            future.set_result(None)

    async def _settle(self) -> None:
        loop: Any = asyncio.get_running_loop()
        await asyncio.sleep(0)
        while loop._ready:  # noqa: ASYNC110 - there is no event for an idle loop
            await asyncio.sleep(0)
