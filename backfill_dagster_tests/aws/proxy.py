"""A proxy in front of an AWS-like server: passes requests on, notes them, and makes trouble as it is told.

Trouble is what AWS and networks really do: throttling, internal errors, connections that break before or after the
work was done, half of a batch left unprocessed, delay, silence.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
from aiohttp import web

_BODY_MAX = 1024**3
_PASSED_ON = {"transfer-encoding", "content-length", "connection", "keep-alive", "date", "server", "x-amz-crc32"}


class Trouble(StrEnum):
    """What becomes of a request."""

    THROTTLED = "throttled"
    """Refused, with the service's own word for "too fast"."""
    INTERNAL_ERROR = "internal_error"
    """500, and nothing was done."""
    RESET = "reset"
    """The connection breaks, and nothing was done."""
    LOST_REPLY = "lost_reply"
    """It is done, and the connection breaks."""
    LATE = "late"
    """The connection breaks, and the request arrives only with `Proxy.deliver`: it was on its way all the time."""
    HALF = "half"
    """Of a batch of writes or reads, half is done and the rest comes back as unprocessed; others pass."""
    DELAY = "delay"
    """It takes a moment longer."""
    HANG = "hang"
    """It is accepted, nothing is done, and no answer ever comes."""
    DENIED = "denied"
    """S3's 403, for whoever asks for it: no client tries again."""
    WRONG_SIGNATURE = "wrong_signature"
    """S3's 403 to whoever has another secret key, for whoever asks for it: no client tries again."""

    CONFLICT = "conflict"
    """S3's 409 to a conditional write, when another one on that key is under way: no client tries again."""
    UNKNOWN_HEADER = "unknown_header"
    """501 of a server that knows no conditions, for whoever asks for it."""
    BAD_HEADER = "bad_header"
    """400 of another such server, which names the header."""
    EXPIRED = "expired"
    """S3's 400 to whoever's credentials have expired, for whoever asks for it: no client tries again."""
    ARCHIVED = "archived"
    """S3's 403 to whoever reads an object that a rule has moved to an archive: no client tries again."""
    KEY_DISABLED = "key_disabled"
    """S3's 400 to whoever reads an object whose encryption key is turned off: no client tries again."""
    GONE = "gone"
    """S3's 404 to whoever reads an object that isn't there: no client tries again."""


_OF_S3 = {
    Trouble.DENIED: (403, "AccessDenied", "User is not authorized to perform this."),
    Trouble.WRONG_SIGNATURE: (403, "SignatureDoesNotMatch", "The request signature we calculated does not match."),
    Trouble.CONFLICT: (409, "ConditionalRequestConflict", "A conflicting conditional operation is in progress."),
    Trouble.UNKNOWN_HEADER: (501, "NotImplemented", "A header you provided implies functionality not implemented."),
    Trouble.BAD_HEADER: (400, "InvalidArgument", "Unsupported header If-None-Match for this request."),
    Trouble.EXPIRED: (400, "ExpiredToken", "The provided token has expired."),
    Trouble.ARCHIVED: (403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
    Trouble.KEY_DISABLED: (400, "KMS.DisabledException", "arn:aws:kms:eu-west-3:123456789012:key/k is disabled."),
    Trouble.GONE: (404, "NoSuchKey", "The specified key does not exist."),
}

PASSING = tuple(one for one in Trouble if one not in (Trouble.LATE, Trouble.HANG, *_OF_S3))
"""What trying again gets over, and soon."""


@dataclass(frozen=True)
class Seen:
    """One request as it came.

    Attributes:
        method: of HTTP.
        path: bucket and key, percent-decoded.
        query: the query's names and values.
        target: DynamoDB's operation, empty for S3.
        body: JSON of a DynamoDB request, else {}.
    """

    method: str
    path: str
    query: dict[str, str]
    target: str
    body: dict[str, Any] = field(default_factory=dict)


Choose = Callable[[Seen], Trouble | None]


def mixed(rate: float, seed: int, kinds: tuple[Trouble, ...] = PASSING) -> Choose:
    """Trouble of any kind for a share of the requests."""
    dice = random.Random(seed)
    return lambda seen: dice.choice(kinds) if dice.random() < rate else None


class Proxy:
    """Attributes: `url`; `seen`, the requests so far; `troubled`, how many met with which; `choose`, set at will."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.choose: Choose = lambda seen: None
        self.strip_headers: frozenset[str] = frozenset()
        """Lower-case names of request headers that the server never gets to see."""
        self.seen: list[Seen] = []
        self.troubled: list[Trouble] = []
        self._late: list[tuple[web.Request, bytes]] = []

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=_BODY_MAX)
        app.router.add_route("*", "/{any:.*}", self._handle)
        self._ended = asyncio.Event()
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def deliver(self) -> list[int]:
        """Pass on what is late, and return what the server says to it: its statuses. From any other thread."""
        late, self._late = self._late, []
        return [
            asyncio.run_coroutine_threadsafe(self._pass_on(request, data), self._loop).result(30).status
            for request, data in late
        ]

    async def stop(self) -> None:
        self._ended.set()
        await self._session.close()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        target = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        body = json.loads(data) if target and data else {}
        seen = Seen(request.method, request.path, dict(request.query), target, body)
        self.seen.append(seen)
        trouble = self.choose(seen)
        if trouble is not None:
            self.troubled.append(trouble)
        if trouble is Trouble.LATE:
            self._late.append((request, data))
        if trouble is Trouble.HANG:
            await self._ended.wait()
        if trouble in (Trouble.RESET, Trouble.LATE, Trouble.HANG):
            return _broken(request)
        if trouble is Trouble.THROTTLED:
            return _throttled(bool(target))
        if trouble in _OF_S3:
            return _xml(*_OF_S3[trouble])
        if trouble is Trouble.INTERNAL_ERROR:
            return _internal_error(bool(target))
        if trouble is Trouble.DELAY:
            await asyncio.sleep(0.05)
        if trouble is Trouble.HALF and target in ("BatchWriteItem", "BatchGetItem"):
            return await self._half(request, body)
        reply = await self._pass_on(request, data)
        return _broken(request) if trouble is Trouble.LOST_REPLY else reply

    async def _pass_on(self, request: web.Request, data: bytes) -> web.Response:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in self.strip_headers and name.lower() not in ("content-length", "transfer-encoding")
        }
        async with self._session.request(
            request.method, self.upstream + request.raw_path, headers=headers, data=data, skip_auto_headers=("Accept",)
        ) as found:
            content = await found.read()
            kept = {name: value for name, value in found.headers.items() if name.lower() not in _PASSED_ON}
            if request.method == "HEAD":
                kept["Content-Length"] = found.headers.get("Content-Length", "0")
            return web.Response(status=found.status, body=content, headers=kept)

    async def _half(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        """Do the first half of a batch on one table; the other comes back unprocessed."""
        ((table, asked),) = body["RequestItems"].items()
        keys = asked if isinstance(asked, list) else asked["Keys"]
        done, left = keys[: len(keys) // 2], keys[len(keys) // 2 :]

        def asking(some: list[Any]) -> dict[str, Any]:
            return {table: some if isinstance(asked, list) else {**asked, "Keys": some}}

        name = "UnprocessedItems" if isinstance(asked, list) else "UnprocessedKeys"
        if not done:
            empty = {} if isinstance(asked, list) else {"Responses": {table: []}}
            return _json(200, {**empty, name: asking(left)})
        reply = await self._pass_on(request, json.dumps({**body, "RequestItems": asking(done)}).encode())
        if reply.status != 200:
            return reply
        said = json.loads(reply.body)  # type: ignore[arg-type]
        return _json(200, {**said, name: asking(left)})


def _broken(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)


def _throttled(is_dynamodb: bool) -> web.Response:
    if is_dynamodb:
        name = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"
        return _json(400, {"__type": name, "message": "The level of configured provisioned throughput was exceeded"})
    return _xml(503, "SlowDown", "Please reduce your request rate.")


def _internal_error(is_dynamodb: bool) -> web.Response:
    if is_dynamodb:
        return _json(500, {"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError", "message": "a fault"})
    return _xml(500, "InternalError", "We encountered an internal error. Please try again.")


def _json(status: int, content: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=json.dumps(content).encode(), content_type="application/x-amz-json-1.0")


def _xml(status: int, code: str, message: str) -> web.Response:
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(status=status, body=body.encode(), content_type="application/xml")


@contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    """A proxy in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxy", daemon=True)
    thread.start()
    proxy = Proxy(upstream)

    def do(work: Any) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, loop)
        done.result(30)

    try:
        do(proxy.start())
        try:
            yield proxy
        finally:
            do(proxy.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
