"""Putting replies on the wire in each of the ways that faults break them (`faults.KINDS` says which)."""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from aiohttp import web

from backfill_dagster.localnet.faults import Fault
from backfill_dagster.localnet.replies import CAR_CONTENT_TYPE, HTML_429, Reply, xrpc_error
from backfill_dagster.localnet.sending import GZIP, Answer, gzipped, hang_up, make_response, send, write_body

_HOUR_SECONDS = 3600.0
_FLOOD_BYTES = 1 << 30


async def send_faulty(request: web.Request, reply: Reply, fault: Fault, *, gzip: bool) -> Answer:
    """Send what a fault makes of a reply."""
    if fault.kind in _INSTEAD:
        return await send(request, _INSTEAD[fault.kind](reply, fault), gzip=gzip)
    return await _ON_THE_WIRE[fault.kind](request, reply, fault)


def _cut(body: bytes, fault: Fault) -> int:
    """Where a fault cuts a body."""
    return min(len(body), len(body) // 2 if fault.bytes is None else fault.bytes)


def _seconds(fault: Fault, default: float) -> float:
    return default if fault.seconds is None else fault.seconds


# Faults that are another reply, well sent.


def _status(reply: Reply, fault: Fault) -> Reply:
    status = 500 if fault.status is None else fault.status
    if fault.body is None:
        answer = xrpc_error("InternalServerError" if status >= 500 else "InvalidRequest", "Injected fault", status)
    else:
        answer = Reply(status, fault.body.encode(), "text/plain")
    return dataclasses.replace(answer, headers=fault.headers)


def _rate_limit(reply: Reply, fault: Fault) -> Reply:
    seconds = str(int(_seconds(fault, 1)))
    headers = {**reply.headers, "retry-after": seconds, "ratelimit-remaining": "0", **fault.headers}
    answer = xrpc_error("RateLimitExceeded", "Rate Limit Exceeded", 429)
    return dataclasses.replace(answer, headers=headers)


def _malformed_json(reply: Reply, fault: Fault) -> Reply:
    return Reply(200, b'{"did": "did:plc:', headers=reply.headers)


def _html(reply: Reply, fault: Fault) -> Reply:
    return Reply(200, b"<!DOCTYPE html><title>Welcome</title><p>Nothing to see here.", "text/html")


def _flip_byte(reply: Reply, fault: Fault) -> Reply:
    body = bytearray(reply.body)
    if body:
        body[min(_cut(reply.body, fault), len(body) - 1)] ^= 0x01
    return dataclasses.replace(reply, body=bytes(body))


def _truncate_body(reply: Reply, fault: Fault) -> Reply:
    return dataclasses.replace(reply, body=reply.body[: _cut(reply.body, fault)])


def _trailing_garbage(reply: Reply, fault: Fault) -> Reply:
    return dataclasses.replace(reply, body=reply.body + b"\x37" * (100 if fault.bytes is None else fault.bytes))


def _empty_car(reply: Reply, fault: Fault) -> Reply:
    sections = _car_sections(reply)
    return dataclasses.replace(reply, body=sections[0]) if sections else reply


def _drop_block(reply: Reply, fault: Fault) -> Reply:
    header, *blocks = _car_sections(reply) or [reply.body]
    number = -1 if fault.block is None else fault.block
    if -len(blocks) <= number < len(blocks):
        del blocks[number]
    return dataclasses.replace(reply, body=b"".join((header, *blocks)))


def _car_sections(reply: Reply) -> list[bytes]:
    """The sections of a CAR, header first; none when the reply is none."""
    if reply.status != 200 or reply.content_type != CAR_CONTENT_TYPE:
        return []
    body, at, out = reply.body, 0, []
    while at < len(body):
        size = shift = 0
        begin = at
        while True:
            byte = body[at]
            size |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        at += size
        out.append(body[begin:at])
    return out


def _redirect(reply: Reply, fault: Fault) -> Reply:
    return Reply(302, b"", "text/plain", {"Location": fault.location or "http://localhost:1/"})


_INSTEAD: Mapping[str, Callable[[Reply, Fault], Reply]] = {
    "status": _status,
    "rate_limit": _rate_limit,
    "rate_limit_html": lambda _, __: HTML_429,
    "malformed_json": _malformed_json,
    "html": _html,
    "flip_byte": _flip_byte,
    "truncate_body": _truncate_body,
    "trailing_garbage": _trailing_garbage,
    "redirect": _redirect,
    "wrong_repo": lambda reply, _: reply,
    "whole_repo": lambda reply, _: reply,
    "empty_car": _empty_car,
    "drop_block": _drop_block,
}


# Faults that break the way an answer is sent.


async def _reset(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    response = make_response(reply)
    await response.prepare(request)
    await write_body(response, reply.body[: _cut(reply.body, fault)])
    # What was written has to reach the client before the reset throws the rest away.
    await asyncio.sleep(0.01)
    return hang_up(request, reset=True)


async def _truncate_chunked(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    response = make_response(reply)
    response.enable_chunked_encoding()
    await response.prepare(request)
    await write_body(response, reply.body[: _cut(reply.body, fault)])
    return hang_up(request, reset=False)


async def _short_length(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    response = make_response(reply)
    response.content_length = len(reply.body)
    await response.prepare(request)
    await write_body(response, reply.body[: _cut(reply.body, fault)])
    return hang_up(request, reset=False)


async def _truncate_gzip(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    body = gzipped(reply.body)
    response = make_response(reply)
    response.headers["Content-Encoding"] = "gzip"
    await response.prepare(request)
    await write_body(response, body[: _cut(body, fault)])
    await response.write_eof()
    return response


async def _stall(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    await asyncio.sleep(_seconds(fault, _HOUR_SECONDS))
    return hang_up(request, reset=False)


async def _stall_body(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    response = make_response(reply)
    await response.prepare(request)
    await write_body(response, reply.body[: _cut(reply.body, fault)])
    return await _stall(request, reply, fault)


async def _drip(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    response = make_response(reply)
    await response.prepare(request)
    for position in range(len(reply.body)):
        await response.write(reply.body[position : position + 1])
        await asyncio.sleep(_seconds(fault, 0.1))
    await response.write_eof()
    return response


async def _early_hints(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    while request.transport is not None and not request.transport.is_closing():
        request.transport.write(b"HTTP/1.1 103 Early Hints\r\nLink: </>; rel=preload\r\n\r\n")
        await asyncio.sleep(_seconds(fault, 0.05))
    return web.Response()


async def _flood(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    return await _send_pieces(request, reply, _zeros(fault), {})


async def _gzip_bomb(request: web.Request, reply: Reply, fault: Fault) -> Answer:
    return await _send_pieces(request, reply, _gzipped(_zeros(fault)), {"Content-Encoding": "gzip"})


async def _zeros(fault: Fault) -> AsyncIterator[bytes]:
    left = _FLOOD_BYTES if fault.bytes is None else fault.bytes
    piece = bytes(1 << 20)
    while left > 0:
        yield piece[:left]
        left -= len(piece)


async def _gzipped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, GZIP)
    async for piece in pieces:
        yield packer.compress(piece)
        await asyncio.sleep(0)
    yield packer.flush()


async def _send_pieces(
    request: web.Request, reply: Reply, pieces: AsyncIterator[bytes], headers: Mapping[str, str]
) -> Answer:
    response = web.StreamResponse(headers=dict(headers))
    response.content_type = CAR_CONTENT_TYPE
    await response.prepare(request)
    async for piece in pieces:
        if piece:
            await response.write(piece)
    await response.write_eof()
    return response


_ON_THE_WIRE: Mapping[str, Callable[[web.Request, Reply, Fault], Awaitable[Answer]]] = {
    "reset": _reset,
    "truncate_chunked": _truncate_chunked,
    "truncate_gzip": _truncate_gzip,
    "short_length": _short_length,
    "stall": _stall,
    "stall_body": _stall_body,
    "drip": _drip,
    "early_hints": _early_hints,
    "flood": _flood,
    "gzip_bomb": _gzip_bomb,
}
