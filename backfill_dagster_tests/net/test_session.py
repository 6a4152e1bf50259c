"""Connections: what is sent, where they may go, what fails before an answer."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from backfill_dagster import __version__
from backfill_dagster.errors import (
    NetworkError,
    RefusedHostError,
    TimedOutError,
    UsageError,
)
from backfill_dagster.net import get, open_session
from backfill_dagster.net.session import user_agent
from backfill_dagster_tests.net.fetching import fetch, limits, resolving
from backfill_dagster_tests.net.servers import answer, raw_server, web_server


async def test_what_is_sent() -> None:
    async with raw_server(answer(b"x", "Set-Cookie: a=b")) as server:
        async with open_session(contact="me@example.org", allow_private_hosts=True) as session:
            for _ in range(2):
                params = {"did": "did:web:localhost%3A1", "since": "a b"}
                await get(session, f"{server.url}/x", params=params, max_bytes=9, headers={"Accept": "text/plain"})
        head = server.requests[1].decode().split("\r\n")
    assert head[0] == "GET /x?did=did%3Aweb%3Alocalhost%253A1&since=a+b HTTP/1.1"
    lines = dict(line.split(": ", 1) for line in head[1:] if line)
    assert lines["User-Agent"] == f"backfill-dagster/{__version__} (+me@example.org)"
    assert lines["Accept-Encoding"] == "gzip"
    assert lines["Accept"] == "text/plain"
    assert "Cookie" not in lines


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await fetch(answer(b"direct"))).data == b"direct"


async def test_a_connection_is_used_again() -> None:
    peers = []

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response(body=b"x")

    async with web_server(handler) as url, open_session(allow_private_hosts=True) as session:
        for _ in range(3):
            await get(session, url, max_bytes=10)
    assert len(peers) == 3
    assert len(set(peers)) == 1


async def test_a_refused_connection_is_a_network_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connects are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with open_session(allow_private_hosts=True) as session:
            with pytest.raises(NetworkError, match="ClientConnectorError") as caught:
                await get(session, url, max_bytes=10)
    assert caught.value.http_status is None


async def test_tls_trouble_is_a_network_error() -> None:
    silent = raw_server(b"no tls here", waits_for_head=False)
    async with silent as server, open_session(allow_private_hosts=True) as session:
        with pytest.raises(NetworkError, match="SSL"):
            await get(session, f"https://127.0.0.1:{server.port}", max_bytes=10, timeouts=limits())


async def test_a_name_that_does_not_resolve_is_a_network_error() -> None:
    async with resolving({}, allow_private=True) as session:
        with pytest.raises(NetworkError, match="the host name doesn't resolve"):
            await get(session, "http://nowhere.example", max_bytes=10)


async def test_a_name_server_that_hangs_times_out_as_connecting() -> None:
    async def lookup(host: str) -> list[str]:
        await asyncio.sleep(60)
        return []

    async with open_session(allow_private_hosts=True, lookup=lookup, timeouts=limits(connect_seconds=0.05)) as session:
        with pytest.raises(TimedOutError, match="connect_seconds"):
            await get(session, "http://slow.example", max_bytes=10)


@pytest.mark.parametrize("url", ["http://127.0.0.2:{port}", "http://pds.example:{port}"])
async def test_private_addresses_are_refused_at_the_socket(url: str) -> None:
    async with raw_server(answer(b"secret"), host="127.0.0.2") as server:
        async with resolving({"pds.example": ["127.0.0.2"]}, allow_private=False) as session:
            with pytest.raises(RefusedHostError, match=r"127\.0\.0\.2.*allow_private_hosts") as caught:
                await get(session, url.format(port=server.port), max_bytes=10)
        assert server.requests == []
    assert caught.value.error_code == "PrivateHost"


async def test_private_addresses_work_when_they_are_allowed() -> None:
    allowing = resolving({"pds.example": ["127.0.0.2"]}, allow_private=True)
    async with raw_server(answer(b"mine"), host="127.0.0.2") as server, allowing as session:
        body = await get(session, f"http://pds.example:{server.port}", max_bytes=10)
    assert body.data == b"mine"


async def test_of_several_addresses_only_the_public_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.3 plays the public one: nothing listens there, so its fault is a network error, not a refusal."""
    monkeypatch.setattr("backfill_dagster.net.host_safety.is_public_address", lambda text: text == "127.0.0.3")
    async with raw_server(answer(b"secret"), host="127.0.0.2") as server:
        async with resolving({"pds.example": ["127.0.0.2", "127.0.0.3"]}, allow_private=False) as session:
            with pytest.raises(NetworkError):
                await get(session, f"http://pds.example:{server.port}", max_bytes=10)
        assert server.requests == []


async def test_the_system_resolver_is_guarded_too() -> None:
    async with open_session(timeouts=limits()) as session:
        with pytest.raises(RefusedHostError, match="localhost resolves to"):
            await get(session, "http://localhost:9", max_bytes=10)


@pytest.mark.parametrize("contact", ["a\r\nX: y", "ü@example.org", "x" * 201, "tab\there"])
def test_a_contact_that_no_header_can_carry_is_refused(contact: str) -> None:
    with pytest.raises(UsageError, match="user_agent_contact"):
        user_agent(contact)


def test_the_user_agent_without_contact() -> None:
    assert user_agent(None) == f"backfill-dagster/{__version__}"
