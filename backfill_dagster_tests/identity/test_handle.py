"""Handles: provably nothing against a resolver that is down."""

from __future__ import annotations

import pytest
from aiohttp import web

from backfill_dagster.errors import NotFoundError, ServerFaultError, TransientError, UsageError
from backfill_dagster_tests.identity.documents import plc_did, resolving
from backfill_dagster_tests.net.servers import web_server
from backfill_dagster_tests.net.virtual_time import InstantTime

PLC = "http://127.0.0.1:1"


class Service:
    """Answers as told, the last answer for ever."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()  # type: ignore[operator, no-any-return]


async def ask(service: Service, handle: str = "Alice.Example.com", time: InstantTime | None = None) -> str:
    async with web_server(service.handle) as url, resolving(PLC, handle_resolver=url, time=time) as directory:
        assert directory.handle_resolver is not None
        return await directory.handle_resolver.resolve_handle(handle)


async def test_a_handle_resolves() -> None:
    service = Service(lambda: web.json_response({"did": plc_did(3)}))
    assert await ask(service) == plc_did(3)
    assert service.asked == ["/xrpc/com.atproto.identity.resolveHandle?handle=alice.example.com"]


@pytest.mark.parametrize(
    "error",
    [
        {"error": "InvalidRequest", "message": "Unable to resolve handle"},
        {"error": "HandleNotFound", "message": "Unable to resolve handle"},
    ],
)
async def test_a_handle_that_provably_resolves_to_nothing(error: object) -> None:
    service = Service(lambda: web.json_response(error, status=400))
    with pytest.raises(NotFoundError) as caught:
        await ask(service)
    assert caught.value.error_code == "HandleNotFound"
    assert len(service.asked) == 1


@pytest.mark.parametrize("handle", ["", "alice", "did:plc:x", "a..b", "@alice.example.com", "a b.com"])
async def test_what_is_no_handle_is_not_asked(handle: str) -> None:
    service = Service(lambda: web.json_response({"did": plc_did(3)}))
    with pytest.raises(NotFoundError) as caught:
        await ask(service, handle)
    assert caught.value.error_code == "InvalidHandle"
    assert service.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=500),
        lambda: web.Response(status=404, text="<html>"),
        lambda: web.Response(status=400, text="<html>"),
        lambda: web.json_response({"error": "Other"}, status=400),
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({"did": "nonsense"}),
        lambda: web.json_response({"did": 7}),
        lambda: web.json_response({}),
    ],
)
async def test_a_service_that_makes_no_sense_proves_nothing(answer: object) -> None:
    service = Service(answer)
    with pytest.raises(ServerFaultError):
        await ask(service)
    assert len(service.asked) == 3


async def test_a_429_is_waited_out() -> None:
    time = InstantTime()
    limited = Service(
        *[lambda: web.Response(status=429, headers={"ratelimit-reset": str(1_800_000_000 + 30)})],
        lambda: web.json_response({"did": plc_did(3)}),
    )
    assert await ask(limited, time=time) == plc_did(3)
    assert len(limited.asked) == 2
    assert time.now > 0


async def test_a_service_that_is_down_is_transient() -> None:
    async with resolving(PLC, handle_resolver="http://127.0.0.1:1") as directory:
        assert directory.handle_resolver is not None
        with pytest.raises(TransientError):
            await directory.handle_resolver.resolve_handle("alice.example.com")


async def test_without_a_service_there_is_no_resolver() -> None:
    async with resolving(PLC) as directory:
        assert directory.handle_resolver is None


async def test_a_service_url_that_is_no_origin_names_the_key() -> None:
    with pytest.raises(UsageError, match=r"identity\.handle_resolver"):
        async with resolving(PLC, handle_resolver="https://x.example/path"):
            pass
