"""One GET: bounded in time, bytes and what a hostile server can make of both, with every fault put into the error tree.

A 2xx answer comes back whole and proven whole (HTTP framing, gzip trailer) or not at all. What status and body mean to
the protocol isn't decided here (`answers`, `pds`, `identity`), nor when to ask again (`retry`, `rate_limit`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from backfill_dagster.errors import (
    BackfillError,
    NetworkError,
    RefusedHostError,
    ServerFaultError,
    TimedOutError,
    TooLargeError,
)
from backfill_dagster.net.body import Body, Spool
from backfill_dagster.net.evidence import evidence_headers
from backfill_dagster.net.gunzip import Gunzip
from backfill_dagster.net.host_safety import HOW_TO_ALLOW, RefusedAddressError
from backfill_dagster.net.session import READ_BUFFER_BYTES, HttpSession, Timeouts

SPOOL_OVER_BYTES = 32 * 1024 * 1024
ERROR_BODY_MAX_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 10.0
_PIECES_PER_TURN = 8

OnAnswer = Callable[[int, Mapping[str, str]], None]


async def get(
    session: HttpSession,
    url: str,
    *,
    max_bytes: int,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    timeouts: Timeouts | None = None,
    spool_over_bytes: int = SPOOL_OVER_BYTES,
    on_answer: OnAnswer | None = None,
) -> Body:
    """Fetch one URL; redirects are not followed.

    Args:
        session: what `open_session` opened.
        url: scheme, host and path, already encoded.
        max_bytes: bound of a 2xx body, on the wire and decompressed. Of other answers at most 64 KiB are kept.
        params: query parameters, encoded here.
        headers: beyond the session's.
        timeouts: instead of the session's.
        spool_over_bytes: bigger bodies go through a temporary file and come back as a mapping.
        on_answer: called with status and headers (lower case) as soon as they are there, before the body.

    Raises:
        TimedOutError, NetworkError: no whole answer came (refused, reset, DNS, TLS, truncated).
        ServerFaultError: the answer breaks HTTP, redirects, or comes in an encoding that wasn't asked for.
        TooLargeError: over `max_bytes`.
        RefusedHostError: the name or address leads to a private network.
        StateError: no room for a large body.
    """
    limits = timeouts or session.timeouts
    target = URL(f"{url}?{urlencode(params)}" if params else url, encoded=True)
    try:
        async with asyncio.timeout(limits.total_seconds):
            response = await _ask(session, target, url, headers, limits)
            try:
                lower = _lower_case(response)
                if on_answer is not None:
                    on_answer(response.status, lower)
                return await _answer(response, lower, url, limits, max_bytes, spool_over_bytes)
            finally:
                # Harmless after a whole body (its connection is back in the pool), the end of it otherwise.
                response.close()
    except TimeoutError as error:
        raise TimedOutError(
            f"{url}: no complete answer within {limits.total_seconds:g} s (processing.timeouts.total_seconds)"
        ) from error
    except aiohttp.ClientError as error:
        raise _translated(error, url) from error


async def _ask(
    session: HttpSession, target: URL, url: str, headers: Mapping[str, str] | None, limits: Timeouts
) -> aiohttp.ClientResponse:
    try:
        # One bound over the whole wait: a flood of 1xx answers would renew any timeout that each read starts anew.
        async with asyncio.timeout(limits.connect_seconds + limits.first_byte_seconds):
            return await session.client.get(
                target,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_seconds),
            )
    except aiohttp.ConnectionTimeoutError as error:
        raise TimedOutError(
            f"{url}: no connection within {limits.connect_seconds:g} s (processing.timeouts.connect_seconds)"
        ) from error
    except TimeoutError as error:
        raise TimedOutError(
            f"{url}: no answer within {limits.connect_seconds + limits.first_byte_seconds:g} s "
            "(processing.timeouts: connect_seconds + first_byte_seconds)"
        ) from error


async def _answer(
    response: aiohttp.ClientResponse,
    headers: Mapping[str, str],
    url: str,
    limits: Timeouts,
    max_bytes: int,
    spool_over_bytes: int,
) -> Body:
    status = response.status
    if 300 <= status < 400:
        raise ServerFaultError(
            f"{url} redirects elsewhere ({status}), which is not followed",
            http_status=status,
            headers=evidence_headers(headers),
        )
    if not 200 <= status < 300:
        data, wire = await _error_body(response, headers, url, limits)
        return Body(url, status, headers, data, wire)
    _check_framing(status, headers, url)
    if (response.content_length or 0) > max_bytes:
        raise _too_large(url, max_bytes, headers, status)
    spool = Spool(spool_over_bytes)
    try:
        async with aclosing(_pieces(response, headers, url, limits, max_bytes)) as pieces:
            async for piece in pieces:
                spool.write(piece)
                if spool.size_bytes > max_bytes:
                    raise _too_large(url, max_bytes, headers, status)
        return Body(url, status, headers, spool.finish(), response.content.total_bytes)
    finally:
        spool.discard()


async def _error_body(
    response: aiohttp.ClientResponse, headers: Mapping[str, str], url: str, limits: Timeouts
) -> tuple[bytes, int]:
    """What can be read of it: the status has said what matters, a broken body doesn't change that."""
    data = bytearray()
    try:
        async with asyncio.timeout(min(ERROR_BODY_SECONDS, limits.idle_seconds)):
            async with aclosing(_pieces(response, headers, url, limits, 4 * READ_BUFFER_BYTES)) as pieces:
                async for piece in pieces:
                    data += piece
                    if len(data) >= ERROR_BODY_MAX_BYTES:
                        break
    except (TimeoutError, aiohttp.ClientError, BackfillError):
        return bytes(data), response.content.total_bytes
    return bytes(data[:ERROR_BODY_MAX_BYTES]), response.content.total_bytes


async def _pieces(
    response: aiohttp.ClientResponse, headers: Mapping[str, str], url: str, limits: Timeouts, max_wire_bytes: int
) -> AsyncGenerator[bytes, None]:
    """The body's pieces, decompressed; NetworkError when it ends too early."""
    gunzip = _gunzip_for(headers, url, response.status)
    wire_bytes = 0
    while chunk := await _chunk(response, url, limits):
        wire_bytes += len(chunk)
        if wire_bytes > max_wire_bytes:
            raise _too_large(url, max_wire_bytes, headers, response.status)
        if gunzip is None:
            yield chunk
            continue
        try:
            for number, piece in enumerate(gunzip.feed(chunk), 1):
                yield piece
                if number % _PIECES_PER_TURN == 0:
                    await asyncio.sleep(0)  # a bomb may not hold the event loop
        except ValueError as error:
            raise ServerFaultError(f"{url}: {error}", http_status=response.status) from error
    if gunzip is not None and wire_bytes and not gunzip.is_complete:
        raise NetworkError(f"{url}: the gzip body is cut short", http_status=response.status)


async def _chunk(response: aiohttp.ClientResponse, url: str, limits: Timeouts) -> bytes:
    try:
        async with asyncio.timeout(limits.idle_seconds):
            return await response.content.read(READ_BUFFER_BYTES)
    except TimeoutError as error:
        raise TimedOutError(
            f"{url}: silent for {limits.idle_seconds:g} s inside the body (processing.timeouts.idle_seconds)",
            http_status=response.status,
        ) from error


def _check_framing(status: int, headers: Mapping[str, str], url: str) -> None:
    """A body that ends when the connection ends can't be told from a truncated one, unless gzip frames it."""
    transfer = headers.get("transfer-encoding", "").strip().lower()
    if transfer not in ("", "chunked"):
        raise ServerFaultError(f"{url}: transfer encoding {transfer[:40]!r} wasn't asked for", http_status=status)
    if transfer or "content-length" in headers or status == 204 or _is_gzip(headers):
        return
    raise NetworkError(f"{url}: the answer has neither a length nor chunks, so that its end is unproven")


def _gunzip_for(headers: Mapping[str, str], url: str, status: int) -> Gunzip | None:
    if _is_gzip(headers):
        return Gunzip()
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise ServerFaultError(f"{url}: content encoding {encoding[:40]!r} wasn't asked for", http_status=status)
    return None


def _is_gzip(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")


def _lower_case(response: aiohttp.ClientResponse) -> dict[str, str]:
    lower: dict[str, str] = {}
    for name, value in response.headers.items():
        key = name.lower()
        lower[key] = f"{lower[key]}, {value}" if key in lower else value
    return lower


def _too_large(url: str, max_bytes: int, headers: Mapping[str, str], status: int) -> TooLargeError:
    return TooLargeError(
        f"{url}: the answer is larger than {max_bytes} bytes",
        error_code="TooLarge",
        http_status=status,
        headers=evidence_headers(headers),
    )


def _translated(error: aiohttp.ClientError, url: str) -> BackfillError:
    cause = getattr(error, "os_error", None)
    if isinstance(cause, RefusedAddressError):
        return RefusedHostError(f"{url}: {cause}; {HOW_TO_ALLOW}", error_code="PrivateHost")
    if isinstance(error, aiohttp.ClientResponseError):
        return ServerFaultError(f"{url}: the answer breaks HTTP ({_words(error.message)})")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NetworkError(f"{url}: the host name doesn't resolve ({_words(str(cause))})")
    return NetworkError(f"{url}: {type(error).__name__} ({_words(str(error))})")


def _words(text: str) -> str:
    return " ".join(text.split())[:200]
