"""Puts a resolver together from plain values and closes it again; nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backfill_dagster.effects import Effects
from backfill_dagster.identity.cache import DocumentCache
from backfill_dagster.identity.did_web import DidWeb
from backfill_dagster.identity.handle import HandleResolver
from backfill_dagster.identity.plc import PlcDirectory
from backfill_dagster.identity.resolver import Resolver
from backfill_dagster.identity.service_url import service_url
from backfill_dagster.net import HostLimiter, RetryPolicy, Timeouts, TotalLimiter, open_session

SECONDS_PER_DAY = 86_400.0
TIMEOUTS = Timeouts(connect_seconds=10, first_byte_seconds=20, idle_seconds=10, total_seconds=40)
DEFAULT_PLC_URL = "https://plc.directory"


@dataclass(frozen=True, slots=True)
class Directory:
    """What knows DIDs and handles; `handle_resolver` is None when the config has none."""

    resolver: Resolver
    handle_resolver: HandleResolver | None


@asynccontextmanager
async def open_resolver(
    *,
    plc_url: str = DEFAULT_PLC_URL,
    requests_per_second: float = 50.0,
    cache_path: Path | None = None,
    cache_days: float = 7.0,
    handle_resolver: str | None = None,
    allow_private_hosts: bool = False,
    contact: str | None = None,
    max_retries: int = 3,
    timeouts: Timeouts = TIMEOUTS,
    effects: Effects | None = None,
) -> AsyncIterator[Directory]:
    """Open what resolves DIDs and handles.

    Args:
        plc_url: `identity.plc_url`; the user's choice, so it may be private.
        requests_per_second: to the PLC directory, to the handle resolver, and to all did:web hosts together.
        cache_path: SQLite file of the document cache, which knows one PLC directory's documents from another's; None:
            in memory.
        cache_days: how long a document stays good.
        handle_resolver: `identity.handle_resolver`; the user's choice too.
        allow_private_hosts: for did:web.
        contact: for the User-Agent.
        max_retries: further tries for transient faults.
        timeouts: documents are small, so these are shorter than a PDS's.
        effects: clocks, sleep, jitter.

    Raises:
        UsageError: one of the URLs isn't an http(s) origin.
        StateError: the cache can't be opened.
    """
    effects = effects or Effects()
    retries = RetryPolicy(max_retries, effects)
    async with (
        open_session(contact=contact, allow_private_hosts=True, timeouts=timeouts) as chosen,
        open_session(contact=contact, allow_private_hosts=allow_private_hosts, timeouts=timeouts) as strangers,
    ):
        directory = PlcDirectory(chosen, plc_url, HostLimiter(requests_per_second, effects), effects)
        web = DidWeb(strangers, TotalLimiter(requests_per_second, effects), effects)
        handles = handle_resolver and HandleResolver(
            chosen, handle_resolver, HostLimiter(requests_per_second, effects), retries, effects
        )
        with DocumentCache(cache_path, effects.clock, service_url(plc_url, "identity.plc_url")) as cache:
            resolver = Resolver(directory, web, cache, max_age_seconds=cache_days * SECONDS_PER_DAY, retries=retries)
            yield Directory(resolver, handles or None)
