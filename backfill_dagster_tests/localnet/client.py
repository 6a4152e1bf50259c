"""A plain HTTP client of the local network, for tests: it decompresses nothing on its own."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from backfill_dagster.localnet import LocalNetwork


@dataclasses.dataclass
class Got:
    """One answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def gunzipped(self) -> bytes:
        return zlib.decompress(self.body, 31)


class Client:
    """Asks the servers of one network."""

    def __init__(self, network: LocalNetwork, session: aiohttp.ClientSession) -> None:
        self.network = network
        self.session = session

    async def get(self, url: str, headers: dict[str, str] | None = None, **params: str) -> Got:
        async with self.session.get(url, params=params, headers=headers, allow_redirects=False) as response:
            body = await response.read()
            return Got(response.status, {k.lower(): v for k, v in response.headers.items()}, body)

    async def xrpc(self, host: int, method: str, headers: dict[str, str] | None = None, **params: str) -> Got:
        return await self.get(f"{self.network.hosts[host].url}/xrpc/{method}", headers, **params)

    async def repo(self, did: str, host: int | None = None, **params: str) -> Got:
        at = self.network.account(did).host if host is None else host
        return await self.xrpc(at, "com.atproto.sync.getRepo", did=did, **params)

    async def control(self, route: str, body: Any = None) -> Got:
        url = self.network.control_url + route
        async with self.session.request("GET" if body is None else "POST", url, json=body) as response:
            return Got(response.status, {}, await response.read())


@asynccontextmanager
async def client_of(network: LocalNetwork) -> AsyncIterator[Client]:
    timeout = aiohttp.ClientTimeout(total=20)
    headers = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout, headers=headers) as session:
        yield Client(network, session)
