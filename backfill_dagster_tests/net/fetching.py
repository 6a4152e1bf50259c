"""Fetching from servers of the test: one GET, short timeouts, names of our own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from backfill_dagster.net import Body, HttpSession, Timeouts, get, open_session
from backfill_dagster_tests.net.servers import Script, raw_server

MIB = 1024 * 1024


def limits(
    connect_seconds: float = 5, first_byte_seconds: float = 5, idle_seconds: float = 5, total_seconds: float = 10
) -> Timeouts:
    return Timeouts(
        connect_seconds=connect_seconds,
        first_byte_seconds=first_byte_seconds,
        idle_seconds=idle_seconds,
        total_seconds=total_seconds,
    )


async def fetch(
    script: Script | bytes,
    *,
    max_bytes: int = MIB,
    timeouts: Timeouts | None = None,
    spool_over_bytes: int = 32 * MIB,
    params: Mapping[str, str] | None = None,
) -> Body:
    async with raw_server(script) as server, open_session(allow_private_hosts=True) as session:
        return await get(
            session,
            f"{server.url}/a",
            params=params,
            max_bytes=max_bytes,
            timeouts=timeouts or limits(),
            spool_over_bytes=spool_over_bytes,
        )


@asynccontextmanager
async def resolving(names: Mapping[str, list[str]], *, allow_private: bool) -> AsyncIterator[HttpSession]:
    async def lookup(host: str) -> list[str]:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return names[host]

    async with open_session(allow_private_hosts=allow_private, lookup=lookup, timeouts=limits()) as session:
        yield session
