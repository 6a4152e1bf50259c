"""A budget of bytes for the CARs that a run holds at once: in flight, waiting for the writer, being decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

FIRST_GUESS_BYTES = 1024 * 1024


class MemoryBudget:
    """Admits a fetch while the bytes held, real and expected, stay under the limit.

    getRepo announces no length, so a fetch is admitted on the largest of the recent bodies and corrected when its
    own has come. One fetch is always admitted, whatever its size: bodies over 32 MiB lie on disk anyway.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._fetches = 0
        self._expected = FIRST_GUESS_BYTES
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[Claim]:
        """Wait for room, hold it for the block."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._fetches == 0 or self._held + self._expected <= self._limit)
            claim = Claim(self, self._expected)
            self._fetches += 1
            self._held += claim.held_bytes
        try:
            yield claim
        finally:
            async with self._freed:
                self._fetches -= 1
                self._held -= claim.held_bytes
                self._freed.notify_all()

    def corrected(self, claim: Claim, size_bytes: int) -> None:
        """Replace a claim's expectation by its true size."""
        self._held += size_bytes - claim.held_bytes
        claim.held_bytes = size_bytes
        self._expected = max(size_bytes, int(self._expected * 0.9))


class Claim:
    """One fetch's share of the budget."""

    def __init__(self, budget: MemoryBudget, held_bytes: int) -> None:
        self._budget = budget
        self.held_bytes = held_bytes

    def is_really(self, size_bytes: int) -> None:
        """Tell the size of the body that came."""
        self._budget.corrected(self, size_bytes)
