"""The HTTP session: how connections are made and what is never sent or believed.

Every connection passes the address guard; no cookies, no proxies from the environment, no decompression by the library
(it takes truncated gzip for good), bounded headers. Requests and bodies are in `fetch`.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from backfill_dagster import __version__
from backfill_dagster.errors import UsageError
from backfill_dagster.net.host_safety import AddressGuard, RefusedAddressError

HEADERS_MAX_COUNT = 100
HEADER_MAX_BYTES = 8190
READ_BUFFER_BYTES = 256 * 1024
DNS_CACHE_SECONDS = 60

Lookup = Callable[[str], Awaitable[list[str]]]
"""Host name -> its IPv4 addresses as text; raises OSError when there is no such name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The four timeouts of one request, in seconds (`processing.timeouts`).

    Attributes:
        connect_seconds: DNS, TCP and TLS together.
        first_byte_seconds: from then to the end of the answer's headers.
        idle_seconds: the longest silence inside a body.
        total_seconds: all of it; what bounds a server that drips.
    """

    connect_seconds: float = 10.0
    first_byte_seconds: float = 60.0
    idle_seconds: float = 30.0
    total_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class HttpSession:
    """An open session with its defaults; `fetch.get` takes it."""

    client: aiohttp.ClientSession
    timeouts: Timeouts
    allow_private_hosts: bool


@asynccontextmanager
async def open_session(
    *,
    contact: str | None = None,
    allow_private_hosts: bool = False,
    timeouts: Timeouts | None = None,
    lookup: Lookup | None = None,
) -> AsyncIterator[HttpSession]:
    """Open a session; the connections end with the context.

    How many requests are in flight is the caller's matter: the pool itself has no bound.

    Args:
        contact: `processing.user_agent_contact`, goes into the User-Agent.
        allow_private_hosts: `processing.allow_private_hosts`.
        timeouts: defaults for every request of the session.
        lookup: name resolution instead of the system's.

    Raises:
        UsageError: the contact has characters that no header can carry.
    """
    guard = AddressGuard(allow_private_hosts)
    connector = aiohttp.TCPConnector(
        limit=0,
        socket_factory=guard.socket_factory,
        resolver=_GuardedResolver(_LookupResolver(lookup) if lookup else aiohttp.ThreadedResolver(), guard),
        ttl_dns_cache=DNS_CACHE_SECONDS,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent(contact), "Accept-Encoding": "gzip"},
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        max_line_size=HEADER_MAX_BYTES,
        max_field_size=HEADER_MAX_BYTES,
        max_headers=HEADERS_MAX_COUNT,
    ) as client:
        yield HttpSession(client, timeouts or Timeouts(), allow_private_hosts)


def user_agent(contact: str | None) -> str:
    """`backfill-dagster/<version> (+contact)`; UsageError when the contact isn't printable ASCII."""
    name = f"backfill-dagster/{__version__}"
    if not contact:
        return name
    if not contact.isascii() or not contact.isprintable() or len(contact) > 200:
        raise UsageError(
            "processing.user_agent_contact: use at most 200 printable ASCII characters (an e-mail address)"
        )
    return f"{name} (+{contact})"


class _LookupResolver(AbstractResolver):
    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in await self._lookup(host)
        ]

    async def close(self) -> None:
        """Nothing is held open."""


class _GuardedResolver(AbstractResolver):
    """Leaves out addresses that the guard refuses, so that a name with a good and a bad one still works."""

    def __init__(self, inner: AbstractResolver, guard: AddressGuard) -> None:
        self._inner = inner
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [one for one in found if self._guard.allows(one["host"])]
        if found and not allowed:
            raise RefusedAddressError(f"{host} resolves to {found[0]['host']}, which is not a public address")
        return allowed

    async def close(self) -> None:
        await self._inner.close()
