"""One DID: every answer of the PLC directory and of did:web hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.errors import (
    InvalidDidDocumentError,
    NetworkError,
    NotFoundError,
    PermanentError,
    RateLimitedError,
    RefusedHostError,
    ServerFaultError,
    TooLargeError,
    UsageError,
)
from backfill_dagster.identity.did_web import did_web_origin
from backfill_dagster.net import Origin
from backfill_dagster_tests.identity.documents import Plc, document, once, plc_did, resolving
from backfill_dagster_tests.net.servers import web_server
from backfill_dagster_tests.net.virtual_time import InstantTime

DID = plc_did(1)
KEY = "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"


async def test_a_did_plc_resolves() -> None:
    async with Plc().serve() as plc, resolving(plc.url) as directory:
        found = await directory.resolver.resolve(DID)
    assert found == DidDocument(DID, "alice.example.com", "https://pds.example.com", KEY)
    assert plc.asked == [DID]


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (lambda: web.json_response({"message": f"DID not registered: {DID}"}, status=404), "DidNotFound", 404),
        (lambda: web.Response(status=404), "DidNotFound", 404),
        (lambda: web.json_response({"message": f"DID not available: {DID}"}, status=410), "Tombstoned", 410),
    ],
)
async def test_what_the_directory_does_not_have(answer: object, code: str, status: int) -> None:
    plc = Plc(everything=answer)  # type: ignore[arg-type]
    async with plc.serve(), resolving(plc.url) as directory:
        with pytest.raises(NotFoundError) as caught:
            await directory.resolver.resolve(DID)
    assert (caught.value.error_code, caught.value.http_status) == (code, status)
    assert len(plc.asked) == 1


@pytest.mark.parametrize(
    ("did", "kind", "code"),
    [
        ("did:plc:short", NotFoundError, "InvalidPlcDid"),
        ("did:plc:" + "A" * 24, NotFoundError, "InvalidPlcDid"),
        ("did:plc:" + "1" * 24, NotFoundError, "InvalidPlcDid"),
        ("did:key:zQ3sh", PermanentError, "UnsupportedDidMethod"),
        ("did:example:x", PermanentError, "UnsupportedDidMethod"),
        ("nonsense", PermanentError, "InvalidDid"),
        ("", PermanentError, "InvalidDid"),
        ("did:web:example.com:user:alice", InvalidDidDocumentError, "UnsupportedDidWeb"),
        ("did:web:example.com%3A8443", InvalidDidDocumentError, "UnsupportedDidWeb"),
    ],
)
async def test_what_needs_no_question(did: str, kind: type[PermanentError], code: str) -> None:
    async with Plc().serve() as plc, resolving(plc.url) as directory:
        with pytest.raises(PermanentError) as caught:
            await directory.resolver.resolve(did)
    assert (type(caught.value), caught.value.error_code) == (kind, code)
    assert plc.asked == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (document(plc_did(2)), "DidMismatch"),
        ({**document(DID), "service": []}, "NoPds"),
    ],
)
async def test_documents_that_are_no_use(data: object, code: str) -> None:
    plc = Plc(everything=lambda: web.json_response(data))
    async with plc.serve(), resolving(plc.url) as directory:
        for _ in range(2):
            with pytest.raises(InvalidDidDocumentError) as caught:
                await directory.resolver.resolve(DID)
            assert caught.value.error_code == code
    assert plc.asked == [DID, DID]  # neither tried again nor remembered


async def test_a_document_over_a_mebibyte_is_refused() -> None:
    plc = Plc(everything=lambda: web.json_response({**document(DID), "x": "y" * 2**20}))
    async with plc.serve(), resolving(plc.url) as directory:
        with pytest.raises(TooLargeError):
            await directory.resolver.resolve(DID)
    assert len(plc.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=500),
        lambda: web.Response(status=503, text="<html>"),
        lambda: web.Response(status=400, text="bad"),
        lambda: web.Response(text="<html>not a directory"),
        lambda: web.json_response([1]),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    ],
)
async def test_faults_are_tried_again_and_then_raised(answer: object) -> None:
    time = InstantTime()
    plc = Plc(everything=answer)  # type: ignore[arg-type]
    async with plc.serve(), resolving(plc.url, time=time, max_retries=2) as directory:
        with pytest.raises(ServerFaultError):
            await directory.resolver.resolve(DID)
    assert len(plc.asked) == 3


async def test_a_fault_that_passes_is_forgotten() -> None:
    plc = Plc({DID: once(lambda: web.Response(status=502), DID, times=2)})
    async with plc.serve(), resolving(plc.url, max_retries=2) as directory:
        assert (await directory.resolver.resolve(DID)).did == DID
    assert len(plc.asked) == 3


async def test_a_429_is_waited_out_and_never_counted() -> None:
    time = InstantTime()
    limited = once(lambda: web.Response(status=429, headers={"Retry-After": "40"}), DID, times=5)
    plc = Plc({DID: limited})
    async with plc.serve(), resolving(plc.url, time=time, max_retries=0) as directory:
        assert (await directory.resolver.resolve(DID)).did == DID
    assert len(plc.asked) == 6
    assert 5 * 40 <= time.now <= 5 * 44


async def test_a_429_without_end_ends_as_a_rate_limit() -> None:
    plc = Plc(everything=lambda: web.Response(status=429, text="<html>"))
    async with plc.serve(), resolving(plc.url) as directory:
        with pytest.raises(RateLimitedError):
            await directory.resolver.resolve(DID)
    assert len(plc.asked) == 13


async def test_the_cache_answers_until_it_is_too_old(tmp_path: Path) -> None:
    time = InstantTime()
    plc = Plc()
    async with plc.serve():
        for _ in range(2):
            async with resolving(plc.url, time=time, cache_path=tmp_path / "plc.sqlite") as directory:
                await directory.resolver.resolve(DID)
        assert len(plc.asked) == 1
        time.now += 7 * 86400 + 60
        async with resolving(plc.url, time=time, cache_path=tmp_path / "plc.sqlite") as directory:
            await directory.resolver.resolve(DID)
            await directory.resolver.resolve(DID)
        assert len(plc.asked) == 2


async def test_another_directory_is_asked_although_the_cache_knows_the_did(tmp_path: Path) -> None:
    """A config goes from one network to the next, whose DIDs can be the same."""
    here, there = Plc(), Plc({DID: lambda: web.json_response(document(DID, pds="https://there.example.com"))})
    async with here.serve(), there.serve():
        for plc in (here, there, here, there):
            async with resolving(plc.url, cache_path=tmp_path / "plc.sqlite") as directory:
                found = await directory.resolver.resolve(DID)
                assert (found.pds_endpoint == "https://there.example.com") is (plc is there)
    assert (len(here.asked), len(there.asked)) == (1, 1)


async def test_fresh_goes_past_the_cache_and_renews_it() -> None:
    plc = Plc()
    async with plc.serve(), resolving(plc.url) as directory:
        await directory.resolver.resolve(DID)
        plc.special[DID] = lambda: web.json_response(document(DID, pds="https://new.example.com"))
        assert (await directory.resolver.resolve(DID)).pds_endpoint == "https://pds.example.com"
        fresh = await directory.resolver.resolve(DID, fresh=True)
        assert fresh.pds_endpoint == "https://new.example.com"
        assert await directory.resolver.resolve(DID) == fresh
        assert directory.resolver.known([DID, plc_did(9)]) == {DID: fresh}
    assert len(plc.asked) == 2


async def test_a_private_directory_of_the_config_is_fine_while_did_web_is_refused() -> None:
    async with Plc().serve() as plc, resolving(plc.url, allow_private_hosts=False) as directory:
        assert (await directory.resolver.resolve(DID)).did == DID
        for did in ("did:web:localhost%3A80", "did:web:localhost", "did:web:127.0.0.1", "did:web:intranet"):
            with pytest.raises(RefusedHostError, match="allow_private_hosts") as caught:
                await directory.resolver.resolve(did)
            assert caught.value.error_code == "PrivateHost"


@pytest.mark.parametrize("url", ["plc.directory", "https://plc.directory/path", "ftp://plc.directory", ""])
async def test_a_plc_url_that_is_no_origin_names_the_key(url: str) -> None:
    with pytest.raises(UsageError, match=r"identity\.plc_url"):
        async with resolving(url):
            pass


async def test_did_web_on_localhost_goes_by_http_and_its_port() -> None:
    asked = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response(document(did))

    async with web_server(handler) as url, resolving("http://127.0.0.1:1") as directory:
        did = f"did:web:localhost%3A{url.rpartition(':')[2]}"
        found = await directory.resolver.resolve(did)
        again = await directory.resolver.resolve(did)
    assert found.did == did
    assert found.pds_endpoint == "https://pds.example.com"
    assert again == found
    assert asked == ["/.well-known/did.json"]


@pytest.mark.parametrize(
    ("answer", "kind", "requests"),
    [
        (lambda: web.Response(status=404), NotFoundError, 1),
        (lambda: web.Response(status=410), NotFoundError, 1),
        (lambda: web.Response(text="<html>parked"), InvalidDidDocumentError, 1),
        (lambda: web.json_response({"id": "did:web:other.example"}), InvalidDidDocumentError, 1),
        (lambda: web.Response(body=b"x" * (2**20 + 1)), TooLargeError, 1),
        (lambda: web.Response(status=429, headers={"Retry-After": "9"}), RateLimitedError, 1),
        (lambda: web.Response(status=500), ServerFaultError, 3),
        (lambda: web.Response(status=403), ServerFaultError, 3),
        (lambda: web.Response(status=301, headers={"Location": "https://x.example"}), ServerFaultError, 3),
    ],
)
async def test_answers_of_did_web_hosts(answer: object, kind: type[Exception], requests: int) -> None:
    asked = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return answer()  # type: ignore[operator, no-any-return]

    async with web_server(handler) as url, resolving("http://127.0.0.1:1") as directory:
        with pytest.raises(kind):
            await directory.resolver.resolve(f"did:web:localhost%3A{url.rpartition(':')[2]}")
    assert len(asked) == requests


async def test_a_directory_that_refuses_connections_is_a_network_error() -> None:
    time = InstantTime()
    async with Plc().serve() as plc:
        url = plc.url
    async with resolving(url, time=time, max_retries=2) as directory:
        with pytest.raises(NetworkError):
            await directory.resolver.resolve(DID)


@pytest.mark.parametrize(
    ("did", "origin"),
    [
        ("did:web:example.com", Origin("https", "example.com", 443)),
        ("did:web:localhost%3A2583", Origin("http", "localhost", 2583)),
        ("did:web:localhost%3a2583", Origin("http", "localhost", 2583)),
        ("did:web:localhost", Origin("http", "localhost", 80)),
    ],
)
def test_where_a_did_web_document_is(did: str, origin: Origin) -> None:
    assert did_web_origin(did, allow_private_hosts=True) == origin


def test_a_public_did_web_needs_no_permission() -> None:
    assert did_web_origin("did:web:example.com", allow_private_hosts=False).url == "https://example.com"


@pytest.mark.parametrize("did", ["did:web:localhost%3A99999", "did:web:a_b.example", "did:web:-"])
def test_a_did_web_that_names_no_host_is_refused(did: str) -> None:
    with pytest.raises(RefusedHostError) as caught:
        did_web_origin(did, allow_private_hosts=True)
    assert caught.value.error_code == "BadEndpoint"
