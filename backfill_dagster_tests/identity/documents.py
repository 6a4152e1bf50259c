"""DID documents and a PLC directory for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from backfill_dagster.effects import Effects
from backfill_dagster.identity import Directory, open_resolver
from backfill_dagster.net import Timeouts
from backfill_dagster_tests.net.servers import web_server
from backfill_dagster_tests.net.virtual_time import InstantTime

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
TIMEOUTS = Timeouts(connect_seconds=2, first_byte_seconds=2, idle_seconds=2, total_seconds=3)


def plc_did(number: int) -> str:
    """The number-th did:plc."""
    digits = "".join(ALPHABET[number >> (5 * n) & 31] for n in range(24))
    return f"did:plc:{digits}"


def document(did: str, pds: str = "https://pds.example.com", handle: str = "alice.example.com") -> dict[str, Any]:
    """A DID document as the PLC directory writes it."""
    return {
        "id": did,
        "alsoKnownAs": [f"at://{handle}"],
        "verificationMethod": [
            {
                "id": f"{did}#atproto",
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": "zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF",
            }
        ],
        "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds}],
    }


@dataclass
class Plc:
    """A PLC directory: DIDs in `special` are answered as said, all others have a document."""

    special: dict[str, Callable[[], web.Response]] = field(default_factory=dict)
    everything: Callable[[], web.Response] | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        did = request.path[1:]
        self.asked.append(did)
        answer = self.special.get(did, self.everything)
        return answer() if answer else web.json_response(document(did))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Plc]:
        async with web_server(self.handle) as self.url:
            yield self


def once(first: Callable[[], web.Response], did: str, times: int = 1) -> Callable[[], web.Response]:
    """Answers so at first, then with the DID's document."""
    left = [times]

    def answer() -> web.Response:
        left[0] -= 1
        return first() if left[0] >= 0 else web.json_response(document(did))

    return answer


@asynccontextmanager
async def resolving(
    plc_url: str,
    *,
    time: InstantTime | None = None,
    effects: Effects | None = None,
    cache_path: Path | None = None,
    handle_resolver: str | None = None,
    allow_private_hosts: bool = True,
    max_retries: int = 2,
) -> AsyncIterator[Directory]:
    """A resolver against servers of the test, that never waits in earnest."""
    async with open_resolver(
        plc_url=plc_url,
        cache_path=cache_path,
        handle_resolver=handle_resolver,
        allow_private_hosts=allow_private_hosts,
        max_retries=max_retries,
        timeouts=TIMEOUTS,
        effects=effects or (time or InstantTime()).effects(),
    ) as directory:
        yield directory
