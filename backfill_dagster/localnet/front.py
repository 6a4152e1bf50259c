"""What stands before every server: counting requests, rate limits, faults, and sending the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from aiohttp import web

from backfill_dagster.localnet.accounts import HostStatus
from backfill_dagster.localnet.breaking import send_faulty
from backfill_dagster.localnet.faults import FaultTable
from backfill_dagster.localnet.listener import Handler
from backfill_dagster.localnet.pds_server import PdsHost
from backfill_dagster.localnet.plc_server import answer_plc, answer_web, split_path
from backfill_dagster.localnet.replies import HTML_429, Reply, xrpc_error
from backfill_dagster.localnet.sending import hang_up, send
from backfill_dagster.localnet.traffic import Buckets, Traffic
from backfill_dagster.localnet.world import World

GoDown = Callable[[], Awaitable[None]]


@dataclasses.dataclass(frozen=True, slots=True)
class Hall:
    """What all fronts of a network share."""

    world: World
    faults: FaultTable
    traffic: Traffic
    gzip: bool


def pds_front(hall: Hall, number: int, buckets: Buckets, go_down: GoDown) -> Handler:
    """The handler of PDS host `number`.

    Args:
        hall: of the network.
        number: of the host.
        buckets: its rate limits.
        go_down: called when a fault says that the host is down from now on.
    """
    host = PdsHost(hall.world, number)
    url = hall.world.host_urls[number]

    async def handle(request: web.Request) -> web.StreamResponse:
        method = request.path.removeprefix("/xrpc/")
        did = request.query.get("did") or request.query.get("repo") or ""
        hall.traffic.note(url, method)
        allowance = buckets.take(method)
        fault = hall.faults.take(number, method, did)
        if fault is not None and fault.kind == "down":
            await go_down()
            return hang_up(request, reset=True)
        if not allowance.allowed:
            return await send(request, _refusal(allowance.headers), gzip=False)
        query = dict(request.query)
        if fault is not None and fault.kind == "wrong_repo":
            query["did"] = _somebody_else(hall.world, number, did)
        if fault is not None and fault.kind == "whole_repo":
            query.pop("since", None)
        reply = await host.answer(method, query)
        reply = dataclasses.replace(reply, headers={**reply.headers, **allowance.headers})
        if fault is not None:
            return await send_faulty(request, reply, fault, gzip=hall.gzip)
        return await send(request, reply, gzip=hall.gzip)

    return handle


def plc_front(hall: Hall, url: str, go_down: GoDown) -> Handler:
    """The handler of the PLC directory."""
    return _identity_front(hall, url, "plc", go_down, lambda did, path: answer_plc(hall.world, did, path))


def web_front(hall: Hall, url: str, did: str, go_down: GoDown) -> Handler:
    """The handler of a did:web account's own server."""
    return _identity_front(hall, url, "web", go_down, lambda _, path: answer_web(hall.world, did, path))


def _identity_front(hall: Hall, url: str, name: str, go_down: GoDown, answer: Callable[[str, str], Reply]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        did, path = split_path(request.path)
        hall.traffic.note(url, path)
        fault = hall.faults.take(name, path, did)
        if fault is not None and fault.kind == "down":
            await go_down()
            return hang_up(request, reset=True)
        reply = answer(did, path)
        if fault is not None:
            return await send_faulty(request, reply, fault, gzip=hall.gzip)
        return await send(request, reply, gzip=hall.gzip)

    return handle


def _refusal(headers: dict[str, str]) -> Reply:
    if not headers:
        return HTML_429
    return dataclasses.replace(xrpc_error("RateLimitExceeded", "Rate Limit Exceeded", 429), headers=headers)


def _somebody_else(world: World, number: int, did: str) -> str:
    """Another active account of the host (the same one when it is the only one)."""
    others = (a.did for a in world.on_host(number) if a.did != did and a.status is HostStatus.ACTIVE)
    return next(others, did)
