"""Servers on loopback for tests: raw ones that send what they are told, byte by byte, and aiohttp ones."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """Where it listens, and the head of each request it got."""

    port: int
    host: str = "127.0.0.1"
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def raw_server(
    script: Script | bytes, host: str = "127.0.0.1", *, waits_for_head: bool = True
) -> AsyncIterator[RawServer]:
    """Reads the request's head, then runs the script (or sends the bytes), then closes the connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        try:
            if waits_for_head:
                server.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if isinstance(script, bytes):
                writer.write(script)
                await writer.drain()
            else:
                await script(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, host, 0)
    server = RawServer(listener.sockets[0].getsockname()[1], host)
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def web_server(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """An aiohttp server with one handler for every path; yields its URL."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answer(
    body: bytes = b"", *headers: str, status: str = "200 OK", content_length: int | None = None, version: str = "1.1"
) -> bytes:
    """A whole answer with a Content-Length (another one than the body's, if so wished; -1 for none)."""
    length = len(body) if content_length is None else content_length
    lines = [f"HTTP/{version} {status}", *headers]
    if length >= 0:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def gzipped(body: bytes) -> bytes:
    """The body as gzip."""
    return gzip.compress(body, 9, mtime=0)
