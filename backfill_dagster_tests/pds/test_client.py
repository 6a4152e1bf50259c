"""What each answer of a PDS becomes."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from backfill_dagster.atproto.cid import cid_of, cid_text
from backfill_dagster.errors import (
    AccountUnavailableError,
    BackfillError,
    NetworkError,
    RateLimitedError,
    RefusedHostError,
    ServerFaultError,
    TimedOutError,
    TooLargeError,
)
from backfill_dagster.net import Timeouts, check_endpoint, open_session
from backfill_dagster.pds import LatestCommit, PdsClient, RepoStatus
from backfill_dagster_tests.net.servers import RawServer, Script, answer, gzipped, raw_server

DID = "did:plc:abcdefghijklmnopqrstuvwx"
REV = "3kabcdefgh2aa"
CID = cid_text(cid_of(b"\xa0"))
NOW = 1_800_000_000.0
CAR = "Content-Type: application/vnd.ipld.car"
JSON = "Content-Type: application/json; charset=utf-8"
TIMEOUTS = Timeouts(connect_seconds=2, first_byte_seconds=2, idle_seconds=2, total_seconds=4)


@asynccontextmanager
async def client_of(
    server: RawServer, max_repo_bytes: int = 2**20, spool_over_bytes: int = 2**20
) -> AsyncIterator[PdsClient]:
    async with open_session(allow_private_hosts=True, timeouts=TIMEOUTS) as session:
        yield PdsClient(
            session,
            check_endpoint(server.url, allow_private=True),
            max_repo_bytes=max_repo_bytes,
            clock=lambda: NOW,
            spool_over_bytes=spool_over_bytes,
        )


async def error_of(script: Script | bytes, max_repo_bytes: int = 2**20) -> BackfillError:
    async with raw_server(script) as server, client_of(server, max_repo_bytes) as client:
        with pytest.raises(BackfillError) as caught:
            await client.get_repo(DID)
    return caught.value


@pytest.mark.parametrize("content_type", [CAR, "Content-Type: Application/VND.ipld.car; charset=binary"])
async def test_a_repo_comes_back_as_it_was_sent(content_type: str) -> None:
    async with raw_server(answer(b"the car", content_type)) as server, client_of(server) as client:
        with await client.get_repo(DID) as body:
            assert (body.data, body.bytes_on_wire) == (b"the car", 7)
        assert client.origin.url == server.url
    assert server.requests[0].startswith(
        b"GET /xrpc/com.atproto.sync.getRepo?did=did%3Aplc%3Aabcdefghijklmnopqrstuvwx HTTP/1.1\r\n"
    )


async def test_since_and_odd_dids_are_encoded() -> None:
    async with raw_server(answer(b"x", CAR)) as server, client_of(server) as client:
        await client.get_repo("did:web:localhost%3A2583", since=REV)
    assert b"?did=did%3Aweb%3Alocalhost%253A2583&since=3kabcdefgh2aa HTTP" in server.requests[0]


async def test_large_repos_are_mapped_and_on_answer_is_told_first() -> None:
    heard: list[int] = []

    def listen(status: int, headers: Mapping[str, str]) -> None:
        heard.append(status)

    raw = answer(gzipped(b"x" * 5000), CAR, "Content-Encoding: gzip")
    async with raw_server(raw) as server, client_of(server, spool_over_bytes=1000) as client:
        with await client.get_repo(DID, on_answer=listen) as body:
            assert isinstance(body.data, mmap.mmap)
            assert bytes(body.data) == b"x" * 5000
    assert heard == [200]


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found"])
@pytest.mark.parametrize("name", ["RepoNotFound", "RepoDeactivated", "RepoSuspended", "RepoTakendown"])
async def test_accounts_that_are_not_served(status: str, name: str) -> None:
    said = f'{{"error":"{name}","message":"Because."}}'.encode()
    error = await error_of(answer(said, JSON, "Server: x", "RateLimit-Remaining: 5", status=status))
    assert isinstance(error, AccountUnavailableError)
    assert (error.error_code, error.http_status) == (name, int(status[:3]))
    assert error.headers["ratelimit-remaining"] == "5"
    assert error.headers["server"] == "x"
    assert error.body_sha256 == hashlib.sha256(said).hexdigest()
    assert str(error).endswith(f"/xrpc/com.atproto.sync.getRepo says {name}: Because.")


@pytest.mark.parametrize(
    "said",
    [
        b'{"error":"InvalidRequest","message":"Could not find repo for DID: did:plc:x"}',
        b'{"error":"NotFound","message":"could not find user"}',
        b'{"error":"InvalidRequest","message":"Could not find root for DID: did:plc:x"}',
    ],
)
async def test_not_found_in_words(said: bytes) -> None:
    error = await error_of(answer(said, JSON, status="400 Bad Request"))
    assert isinstance(error, AccountUnavailableError)
    assert error.error_code == "RepoNotFound"


@pytest.mark.parametrize(
    ("status", "said", "text"),
    [
        ("400 Bad Request", b'{"error":"InvalidRequest","message":"Bad TID"}', "answers 400 InvalidRequest: Bad TID"),
        ("400 Bad Request", b'{"error":"Brandnew"}', "answers 400 Brandnew"),
        ("400 Bad Request", b"Could not find repo", "answers 400"),
        ("404 Not Found", b"<html>nginx</html>", "answers 404"),
        ("404 Not Found", b'{"error":"XRPCNotSupported"}', "answers 404 XRPCNotSupported"),
        ("401 Unauthorized", b'{"error":"RepoNotFound"}', "answers 401 RepoNotFound"),
        ("403 Forbidden", b"", "answers 403"),
        ("410 Gone", b"", "answers 410"),
        ("418 Teapot", b"", "answers 418"),
        ("500 Oops", b'{"error":"RepoNotFound"}', "answers 500 RepoNotFound"),
        ("502 Bad Gateway", b"<html>", "answers 502"),
        ("503 Busy", b"", "answers 503"),
        ("206 Partial Content", b"abc", "answers 206"),
        ("204 No Content", b"", "answers 204"),
    ],
)
async def test_everything_else_is_a_fault_that_may_pass(status: str, said: bytes, text: str) -> None:
    error = await error_of(answer(said, "Retry-After: 7", status=status))
    assert isinstance(error, ServerFaultError)
    assert error.http_status == int(status[:3])
    assert error.headers["retry-after"] == "7"
    assert error.body_sha256 == hashlib.sha256(said).hexdigest()
    assert str(error).endswith(text)


@pytest.mark.parametrize(
    ("raw", "wait"),
    [
        (answer(b"<html>Too Many Requests</html>", "Content-Type: text/html", status="429 Too Many"), None),
        (answer(b'{"error":"RateLimitExceeded"}', JSON, "Retry-After: 33", status="429 Too Many"), 33.0),
        (answer(b"", f"RateLimit-Reset: {NOW + 44:.0f}", status="429 Too Many"), 44.0),
        (answer(b'{"error":"RateLimitExceeded"}', JSON, "Retry-After: 5", status="400 Bad Request"), 5.0),
        (answer(b"cut", status="429 Too Many", content_length=99), None),
    ],
)
async def test_rate_limits(raw: bytes, wait: float | None) -> None:
    error = await error_of(raw)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after_seconds == wait
    assert error.http_status in (400, 429)
    assert error.body_sha256 is not None


@pytest.mark.parametrize("content_type", ["Content-Type: text/html", "Content-Type: application/json", "X-A: b"])
async def test_an_answer_that_is_no_car_is_a_server_fault(content_type: str) -> None:
    error = await error_of(answer(b"<html>", content_type, "Via: proxy"))
    assert isinstance(error, ServerFaultError)
    assert error.http_status == 200
    assert error.headers["via"] == "proxy"
    assert error.body_sha256 == hashlib.sha256(b"<html>").hexdigest()
    assert str(error).endswith("not a CAR")


async def test_a_redirect_is_a_server_fault() -> None:
    error = await error_of(answer(b"", "Location: https://elsewhere.example/", status="302 Found"))
    assert isinstance(error, ServerFaultError)
    assert "redirects elsewhere" in str(error)


async def test_a_repo_over_the_bound_is_too_large() -> None:
    error = await error_of(answer(b"x" * 101, CAR), max_repo_bytes=100)
    assert isinstance(error, TooLargeError)


async def test_a_truncated_repo_is_a_network_error() -> None:
    assert isinstance(await error_of(answer(b"x" * 10, CAR, content_length=11)), NetworkError)


async def test_the_timeouts_are_the_clients_own() -> None:
    own = Timeouts(connect_seconds=0.05, first_byte_seconds=0.05, idle_seconds=1, total_seconds=2)

    async def silence(reader: object, writer: object) -> None:
        await asyncio.sleep(60)

    async with raw_server(silence) as server, open_session(allow_private_hosts=True) as session:
        origin = check_endpoint(server.url, allow_private=True)
        with pytest.raises(TimedOutError):
            await PdsClient(session, origin, clock=lambda: NOW, timeouts=own).get_repo(DID)


async def test_a_host_whose_name_leads_home_is_refused() -> None:
    async def lookup(host: str) -> list[str]:
        return ["127.0.0.2"]

    async with raw_server(answer(b"secret", CAR), host="127.0.0.2") as server, open_session(lookup=lookup) as session:
        origin = check_endpoint(f"http://pds.example:{server.port}", allow_private=False)
        with pytest.raises(RefusedHostError):
            await PdsClient(session, origin, clock=lambda: NOW).get_repo(DID)
        assert server.requests == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (f'{{"did":"{DID}","active":true,"rev":"{REV}"}}', RepoStatus(True, None, REV)),
        (f'{{"did":"{DID}","active":false,"status":"takendown"}}', RepoStatus(False, "takendown", None)),
        ('{"active":false,"status":"desynchronized","rev":"no tid"}', RepoStatus(False, "desynchronized", None)),
        ('{"active":false,"status":7,"rev":7}', RepoStatus(False, None, None)),
        ('{"active":false,"status":"' + "x" * 99 + '"}', RepoStatus(False, "x" * 64, None)),
    ],
)
async def test_repo_status(said: str, expected: RepoStatus) -> None:
    async with raw_server(answer(said.encode(), JSON)) as server, client_of(server) as client:
        assert await client.get_repo_status(DID) == expected
    assert server.requests[0].startswith(b"GET /xrpc/com.atproto.sync.getRepoStatus?did=")


@pytest.mark.parametrize("said", [b'{"active":"yes"}', b"{}", b"[]", b"", b'{"did":"did:plc:x","active":true}'])
async def test_a_status_that_makes_no_sense(said: bytes) -> None:
    async with raw_server(answer(said, JSON)) as server, client_of(server) as client:
        with pytest.raises(ServerFaultError) as caught:
            await client.get_repo_status(DID)
    assert caught.value.body_sha256 == hashlib.sha256(said).hexdigest()


async def test_latest_commit() -> None:
    said = f'{{"cid":"{CID}","rev":"{REV}"}}'.encode()
    async with raw_server(answer(said, JSON)) as server, client_of(server) as client:
        assert await client.get_latest_commit(DID) == LatestCommit(CID, REV)
    assert server.requests[0].startswith(b"GET /xrpc/com.atproto.sync.getLatestCommit?did=")


@pytest.mark.parametrize(
    "said",
    [
        "{}",
        f'{{"cid":"{CID}"}}',
        f'{{"cid":"{CID}","rev":"nonsense"}}',
        f'{{"cid":"nonsense","rev":"{REV}"}}',
        f'{{"cid":7,"rev":"{REV}"}}',
        f'{{"cid":"{CID}","rev":7}}',
        "nonsense",
    ],
)
async def test_a_latest_commit_that_makes_no_sense(said: str) -> None:
    async with raw_server(answer(said.encode(), JSON)) as server, client_of(server) as client:
        with pytest.raises(ServerFaultError):
            await client.get_latest_commit(DID)


async def test_refusals_of_the_small_methods_are_the_same() -> None:
    said = b'{"error":"RepoTakendown","message":"Gone"}'
    async with raw_server(answer(said, JSON, status="400 Bad Request")) as server, client_of(server) as client:
        for method in (client.get_repo_status, client.get_latest_commit):
            with pytest.raises(AccountUnavailableError) as caught:
                await method(DID)
            assert caught.value.error_code == "RepoTakendown"


async def test_small_answers_are_bounded() -> None:
    async with raw_server(answer(b" " * (2**20 + 1), JSON)) as server, client_of(server) as client:
        with pytest.raises(TooLargeError):
            await client.get_latest_commit(DID)
