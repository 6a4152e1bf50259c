"""Many DIDs at once: nobody's fault is anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp import web

from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.errors import (
    InvalidDidDocumentError,
    NetworkError,
    NotFoundError,
    PermanentError,
    RefusedHostError,
    ServerFaultError,
    StateError,
    TransientError,
)
from backfill_dagster.identity import Resolver, resolve_all
from backfill_dagster.identity.batch import Answer
from backfill_dagster_tests.identity.documents import Plc, document, once, plc_did, resolving
from backfill_dagster_tests.net.virtual_time import InstantTime


async def collect(dids: list[str], resolver: Resolver, **how: bool) -> dict[str, Answer]:
    answers = {did: answer async for did, answer in resolve_all(dids, resolver, **how)}
    assert set(answers) == set(dids)
    return answers


async def test_one_bad_did_never_aborts_the_batch() -> None:
    dids = [plc_did(n) for n in range(60)]
    plc = Plc(
        {
            dids[3]: lambda: web.Response(status=404),
            dids[5]: lambda: web.Response(status=410),
            dids[7]: lambda: web.json_response(document(dids[8])),
            dids[9]: lambda: web.Response(status=500),
            dids[11]: lambda: web.Response(text="nonsense"),
            dids[13]: once(lambda: web.Response(status=429, text="<html>"), dids[13]),
        }
    )
    others = {"did:web:localhost%3A1": NetworkError, "did:web:10.0.0.1": NetworkError, "did:x:y": PermanentError}
    wanted = [*dids, "did:web:localhost%3A1", "did:x:y", "nonsense"]
    async with plc.serve(), resolving(plc.url, max_retries=1) as directory:
        answers = await collect(wanted, directory.resolver)
    bad = {did: type(answer) for did, answer in answers.items() if not isinstance(answer, DidDocument)}
    assert bad == {
        dids[3]: NotFoundError,
        dids[5]: NotFoundError,
        dids[7]: InvalidDidDocumentError,
        dids[9]: ServerFaultError,
        dids[11]: ServerFaultError,
        "did:web:localhost%3A1": others["did:web:localhost%3A1"],
        "did:x:y": PermanentError,
        "nonsense": PermanentError,
    }
    assert all(answer.did == did for did, answer in answers.items() if isinstance(answer, DidDocument))


async def test_private_did_webs_are_refused_one_by_one() -> None:
    async with Plc().serve() as plc, resolving(plc.url, allow_private_hosts=False) as directory:
        answers = await collect(["did:web:10.0.0.1", plc_did(1)], directory.resolver)
    assert isinstance(answers["did:web:10.0.0.1"], RefusedHostError)
    assert isinstance(answers[plc_did(1)], DidDocument)


async def test_what_is_known_is_not_asked_again_unless_fresh() -> None:
    dids = [plc_did(n) for n in range(1200)]
    async with Plc().serve() as plc, resolving(plc.url) as directory:
        await collect(dids[:700], directory.resolver)
        assert len(plc.asked) == 700
        await collect(dids, directory.resolver)
        assert len(plc.asked) == 1200
        await collect(dids[:3], directory.resolver, fresh=True)
        assert len(plc.asked) == 1203


async def test_each_place_of_the_input_gets_its_answer() -> None:
    async with Plc().serve() as plc, resolving(plc.url) as directory:
        twice = [plc_did(1), plc_did(1)]
        for _ in range(2):
            answers = [did async for did, _ in resolve_all(twice, directory.resolver)]
            assert answers == twice
    assert len(plc.asked) <= 2


async def test_the_input_is_read_as_needed_and_requests_in_flight_are_bounded() -> None:
    taken = 0
    in_flight = most = 0

    def dids() -> Iterator[str]:
        nonlocal taken
        for number in range(5000):
            taken += 1
            yield plc_did(number)

    class Slow(Plc):
        async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0.002)
            in_flight -= 1
            return await super().handle(request)

    async with Slow().serve() as plc, resolving(plc.url) as directory:
        stream = resolve_all(dids(), directory.resolver, concurrency=4)
        assert [isinstance((await anext(stream))[1], DidDocument) for _ in range(10)] == [True] * 10
        assert taken == 500
        await stream.aclose()
        asked = len(plc.asked)
        await asyncio.sleep(0.02)
        assert len(plc.asked) <= asked + 4
    assert 2 <= most <= 4


async def test_a_directory_that_is_down_is_given_up_on_but_the_cache_still_answers() -> None:
    time = InstantTime()
    dids = [plc_did(n) for n in range(3000)]
    async with Plc().serve() as plc, resolving(plc.url, time=time, max_retries=2) as directory:
        await collect(dids[:100], directory.resolver)
        plc.everything = lambda: web.Response(status=503)
        before = len(plc.asked)
        answers = await collect(dids, directory.resolver)
        assert len(plc.asked) - before <= (32 + 10) * 3
    known = [did for did, answer in answers.items() if isinstance(answer, DidDocument)]
    assert sorted(known) == sorted(dids[:100])
    told = [answer for answer in answers.values() if isinstance(answer, TransientError)]
    assert len(told) == 2900
    assert sum("the PLC directory is down" in str(answer) for answer in told) >= 2900 - 42
    assert told[-1].http_status == 503
    assert isinstance(told[-1].__cause__, ServerFaultError)


async def test_a_directory_that_refuses_connections_is_given_up_on() -> None:
    time = InstantTime()
    async with Plc().serve() as plc:
        url = plc.url
    async with resolving(url, time=time) as directory:
        answers = await collect([plc_did(n) for n in range(2000)], directory.resolver)
    assert all(isinstance(answer, TransientError) for answer in answers.values())
    assert sum(isinstance(answer, NetworkError) for answer in answers.values()) <= 42


async def test_did_web_hosts_that_are_down_say_nothing_about_the_directory() -> None:
    webs = [f"did:web:localhost%3A{port}" for port in range(1, 40)]
    plcs = [plc_did(n) for n in range(40)]
    async with Plc().serve() as plc, resolving(plc.url, max_retries=0) as directory:
        answers = await collect([*webs, *plcs], directory.resolver)
    assert all(isinstance(answers[did], NetworkError) for did in webs)
    assert all(isinstance(answers[did], DidDocument) for did in plcs)


async def test_single_faults_between_answers_are_not_a_directory_that_is_down() -> None:
    dids = [plc_did(n) for n in range(200)]
    plc = Plc({did: (lambda: web.Response(status=500)) for did in dids[::4]})
    async with plc.serve(), resolving(plc.url, max_retries=0) as directory:
        stream = resolve_all(dids, directory.resolver, concurrency=1)
        answers = {did: answer async for did, answer in stream}
    assert [did for did, answer in answers.items() if not isinstance(answer, DidDocument)] == dids[::4]


async def test_trouble_with_the_cache_is_raised_and_everything_ends() -> None:
    async with Plc().serve() as plc, resolving(plc.url) as directory:
        directory.resolver._cache.close()
        with pytest.raises(StateError, match="cache of DID documents"):
            await collect([plc_did(1)], directory.resolver)
        with pytest.raises(StateError):
            await collect([plc_did(n) for n in range(50)], directory.resolver, fresh=True)
        assert [task for task in asyncio.all_tasks() if "_resolve" in repr(task.get_coro())] == []
