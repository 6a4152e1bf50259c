"""Many DIDs: resolved side by side, handed out as they come; one bad DID never costs its neighbours anything.

When the PLC directory is down the rest is answered at once from the cache or with the error that it is down, rather
than with retries for each of a million DIDs. How one DID is resolved is in `resolver`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import suppress
from itertools import islice

from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.errors import PermanentError, TransientError
from backfill_dagster.identity.cache import LOOKUP_MAX_DIDS
from backfill_dagster.identity.resolver import Resolver

CONCURRENCY = 32
FAULTS_UNTIL_DOWN = 10

Answer = DidDocument | PermanentError | TransientError


async def resolve_all(
    dids: Iterable[str], resolver: Resolver, *, concurrency: int = CONCURRENCY, fresh: bool = False
) -> AsyncGenerator[tuple[str, Answer], None]:
    """Resolve DIDs and yield `(did, document or error)`, exactly one for each, in the order in which answers come.

    Args:
        dids: read as needed, never all at once.
        resolver: resolves one.
        concurrency: requests in flight; their rate is the resolver's matter.
        fresh: ask the servers although the cache knows.

    Raises:
        StateError: the cache can't be used. Everything about a single DID is yielded, not raised.
    """
    health = _DirectoryHealth()
    running: set[asyncio.Task[tuple[str, Answer]]] = set()
    remaining = iter(dids)
    try:
        while chunk := list(islice(remaining, LOOKUP_MAX_DIDS)):
            known = {} if fresh else resolver.known(chunk)
            for did, document in known.items():
                yield did, document
            for did in _others(chunk, known):
                while len(running) >= concurrency:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        yield task.result()
                running.add(asyncio.create_task(_resolve(did, resolver, health, fresh)))
        for one in asyncio.as_completed(running):
            yield await one
    finally:
        for task in running:
            task.cancel()
        for task in running:
            # Their errors have been raised or don't matter any more: whoever closes early wants none of them.
            with suppress(asyncio.CancelledError, Exception):
                await task


class _DirectoryHealth:
    """Whether the PLC directory is down: so many faults in a row, each after its retries."""

    def __init__(self) -> None:
        self._faults = 0
        self.down: TransientError | None = None

    def note(self, answer: Answer) -> None:
        if not isinstance(answer, TransientError):
            self._faults = 0
            return
        self._faults += 1
        if self._faults >= FAULTS_UNTIL_DOWN:
            self.down = answer


async def _resolve(did: str, resolver: Resolver, health: _DirectoryHealth, fresh: bool) -> tuple[str, Answer]:
    is_plc = did.startswith("did:plc:")
    if is_plc and health.down is not None:
        return did, _not_asked(did, health.down)
    answer: Answer
    try:
        answer = await resolver.resolve(did, fresh=fresh)
    except (PermanentError, TransientError) as error:
        answer = error
    if is_plc:
        health.note(answer)
    return did, answer


def _not_asked(did: str, down: TransientError) -> TransientError:
    error = TransientError(
        f"{did} was not looked up, the PLC directory is down: {down}; run again later",
        http_status=down.http_status,
        headers=down.headers,
    )
    error.__cause__ = down
    return error


def _others(chunk: list[str], known: dict[str, DidDocument]) -> Iterator[str]:
    """What isn't known, and what stands twice: each place in the input gets its own answer."""
    answered = set(known)
    for did in chunk:
        if did in answered:
            answered.discard(did)
        else:
            yield did
