"""Putting replies on the wire as they should be; `breaking.py` has the ways of faults to do it wrong."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib

from aiohttp import web

from backfill_dagster.localnet.replies import Reply

_CHUNK_BYTES = 64 * 1024
_GZIP_FROM_BYTES = 1024
GZIP = 31
"""zlib's name for the gzip format."""

Answer = web.StreamResponse


async def send(request: web.Request, reply: Reply, *, gzip: bool) -> Answer:
    """Send a reply, gzipped if the client accepts that and `gzip` allows it."""
    body = reply.body
    response = make_response(reply)
    if gzip and _accepts_gzip(request) and (reply.chunked or len(body) > _GZIP_FROM_BYTES):
        response.headers["Content-Encoding"] = "gzip"
        # Deflating a whole repo takes long enough to be in the way of the other hosts' requests.
        body = await asyncio.to_thread(gzipped, body)
    if not reply.chunked:
        response.content_length = len(body)
    await response.prepare(request)
    if request.method != "HEAD":
        await write_body(response, body)
    await response.write_eof()
    return response


def hang_up(request: web.Request, *, reset: bool) -> Answer:
    """Close the connection without a word more, by RST when `reset`."""
    transport = request.transport
    if transport is not None and reset:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    elif transport is not None:
        transport.close()
    return web.Response()


def make_response(reply: Reply) -> Answer:
    """A response with the reply's status, headers and type; nothing sent yet."""
    response = web.StreamResponse(status=reply.status, headers=dict(reply.headers))
    response.content_type = reply.content_type
    return response


def _accepts_gzip(request: web.Request) -> bool:
    wanted = (item.strip().lower().split(";") for item in request.headers.get("Accept-Encoding", "").split(","))
    return any(name.strip() in ("gzip", "*") and "q=0" not in (p.strip() for p in rest) for name, *rest in wanted)


def gzipped(body: bytes) -> bytes:
    """The body as gzip, fast rather than small."""
    packer = zlib.compressobj(1, zlib.DEFLATED, GZIP)
    return packer.compress(body) + packer.flush()


async def write_body(response: Answer, body: bytes) -> None:
    """Write a body piece by piece, as fast as the client takes it."""
    for start in range(0, len(body), _CHUNK_BYTES):
        await response.write(body[start : start + _CHUNK_BYTES])
