"""Every fault as a client sees it, and which requests get it."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet import Fault, LocalnetOptions, LocalNetwork, parse_faults, read_faults
from backfill_dagster.localnet.faults import KINDS, FaultTable
from backfill_dagster_tests.localnet.client import Client, client_of
from backfill_dagster_tests.localnet.plain_reader import sections_of

OPTIONS = LocalnetOptions(hosts=2, repos=6, seed=5, median_records=30, states={})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with LocalNetwork(OPTIONS) as network, client_of(network) as one:
        yield one


async def good(client: Client) -> bytes:
    await client.network.set_faults([])
    return (await client.repo(client.network.dids[0])).body


async def test_status_counts_down_and_then_all_is_well(client: Client) -> None:
    whole = await good(client)
    did = client.network.dids[0]
    await client.network.set_faults([Fault(kind="status", host=0, after=1, times=2, status=503)])
    assert [(await client.repo(did)).status for _ in range(4)] == [200, 503, 503, 200]
    assert (await client.repo(did)).body == whole
    (fault,) = client.network.faults.faults
    assert (fault.shown, fault.times, fault.after) == (2, 0, 0)


async def test_a_status_may_bring_its_own_body_and_headers(client: Client) -> None:
    own = Fault(kind="status", status=502, body="bad gateway", headers={"server": "edge"})
    await client.network.set_faults([own])
    got = await client.repo(client.network.dids[0])
    assert (got.status, got.body, got.headers["server"]) == (502, b"bad gateway", "edge")
    await client.network.set_faults([Fault(kind="status", status=400)])
    assert (await client.repo(client.network.dids[0])).json["error"] == "InvalidRequest"


async def test_429_with_and_without_headers(client: Client) -> None:
    did = client.network.dids[0]
    await client.network.set_faults([Fault(kind="rate_limit", seconds=7)])
    told = await client.repo(did)
    assert (told.status, told.json["error"]) == (429, "RateLimitExceeded")
    assert (told.headers["retry-after"], told.headers["ratelimit-remaining"]) == ("7", "0")
    assert "ratelimit-reset" in told.headers
    await client.network.set_faults([Fault(kind="rate_limit_html")])
    untold = await client.repo(did)
    assert (untold.status, untold.headers["content-type"]) == (429, "text/html")
    assert not [name for name in untold.headers if "ratelimit" in name or name == "retry-after"]


@pytest.mark.parametrize("kind", ["reset", "truncate_chunked", "short_length"])
async def test_a_body_that_breaks_off_is_an_error_of_the_connection(client: Client, kind: str) -> None:
    whole = await good(client)
    await client.network.set_faults([Fault(kind=kind, bytes=1000, times=1)])
    url = f"{client.network.hosts[0].url}/xrpc/com.atproto.sync.getRepo"
    received = b""
    async with client.session.get(url, params={"did": client.network.dids[0]}) as response:
        assert response.status == 200
        with pytest.raises((aiohttp.ClientPayloadError, ConnectionResetError, aiohttp.ClientOSError)):
            async for piece in response.content.iter_any():
                received += piece
    assert whole.startswith(received)
    assert len(received) <= 1000
    assert (await client.repo(client.network.dids[0])).body == whole


async def test_a_truncated_gzip_is_well_framed(client: Client) -> None:
    whole = await good(client)
    await client.network.set_faults([Fault(kind="truncate_gzip")])
    got = await client.repo(client.network.dids[0])
    unpacker = zlib.decompressobj(31)
    assert whole.startswith(unpacker.decompress(got.body))
    assert not unpacker.eof
    assert got.headers["content-encoding"] == "gzip"


async def test_bodies_that_were_tampered_with(client: Client) -> None:
    whole = await good(client)
    did = client.network.dids[0]
    bodies = {}
    for kind, size in (("truncate_body", 777), ("flip_byte", 500), ("trailing_garbage", 9), ("flip_byte", 10**9)):
        await client.network.set_faults([Fault(kind=kind, bytes=size)])
        bodies[kind, size] = (await client.repo(did)).body
    assert bodies["truncate_body", 777] == whole[:777]
    assert [i for i, (a, b) in enumerate(zip(whole, bodies["flip_byte", 500], strict=True)) if a != b] == [500]
    assert bodies["flip_byte", 10**9][:-1] == whole[:-1]
    assert bodies["flip_byte", 10**9][-1] != whole[-1]
    assert bodies["trailing_garbage", 9] == whole + b"\x37" * 9


async def test_wrong_repo_is_the_repo_of_a_neighbour(client: Client) -> None:
    did = client.network.dids[0]
    await client.network.set_faults([Fault(kind="wrong_repo", did=did)])
    got = (await client.repo(did)).body
    assert got != client.network.world.shelf.get(did).car()
    assert got in [client.network.world.shelf.get(other).car() for other in client.network.hosts[0].dids]


async def test_answers_to_since_that_leave_out_too_much_or_nothing(client: Client) -> None:
    did = client.network.dids[0]
    before = client.network.control.describe(did)["rev"]
    await client.network.control.add({"did": did, "records": [{"collection": "com.example.a", "record": {}}]})
    whole = await good(client)
    delta = (await client.repo(did, since=before)).body
    root, blocks = sections_of(delta)
    await client.network.set_faults([Fault(kind="empty_car", times=2)])
    header = (await client.repo(did)).body
    assert (len(header), sections_of(header)) == (59, (root, []))
    assert (await client.repo(did, since=before)).body == header
    for number in (None, 0, 1, -2):
        await client.network.set_faults([Fault(kind="drop_block", block=number)])
        left = blocks.copy()
        del left[-1 if number is None else number]
        assert sections_of((await client.repo(did, since=before)).body) == (root, left)
    await client.network.set_faults([Fault(kind="drop_block", block=len(blocks))])
    assert (await client.repo(did, since=before)).body == delta
    await client.network.set_faults([Fault(kind="whole_repo")])
    assert (await client.repo(did, since=before)).body == whole


async def test_faults_of_a_car_leave_refusals_as_they_are(client: Client) -> None:
    did = client.network.dids[0]
    await client.network.control.status({"did": did, "status": "deactivated"})
    for kind in ("empty_car", "drop_block"):
        await client.network.set_faults([Fault(kind=kind)])
        assert (await client.repo(did)).json["error"] == "RepoDeactivated"


async def test_other_answers_than_a_car(client: Client) -> None:
    did = client.network.dids[0]
    await client.network.set_faults([Fault(kind="malformed_json")])
    assert (await client.xrpc(0, "com.atproto.sync.getRepoStatus", did=did)).body == b'{"did": "did:plc:'
    await client.network.set_faults([Fault(kind="html")])
    assert (await client.repo(did)).headers["content-type"] == "text/html"
    await client.network.set_faults([Fault(kind="redirect", location="http://localhost:9/x")])
    got = await client.repo(did)
    assert (got.status, got.headers["location"]) == (302, "http://localhost:9/x")


async def test_floods_and_bombs_are_as_big_as_told(client: Client) -> None:
    did = client.network.dids[0]
    await client.network.set_faults([Fault(kind="flood", bytes=3_000_001)])
    assert (await client.repo(did)).body == bytes(3_000_001)
    await client.network.set_faults([Fault(kind="gzip_bomb", bytes=3_000_001)])
    got = await client.repo(did)
    assert got.gunzipped == bytes(3_000_001)
    assert len(got.body) < 10_000


@pytest.mark.parametrize("kind", ["stall", "stall_body", "drip", "early_hints"])
async def test_silence_and_trickles_last_until_the_client_gives_up(client: Client, kind: str) -> None:
    await client.network.set_faults([Fault(kind=kind, seconds=0.01 if kind in ("drip", "early_hints") else None)])
    url = f"{client.network.hosts[0].url}/xrpc/com.atproto.sync.getRepo"
    received = 0
    with pytest.raises(TimeoutError):
        async with client.session.get(
            url, params={"did": client.network.dids[0]}, timeout=aiohttp.ClientTimeout(total=0.3)
        ) as response:
            async for piece in response.content.iter_any():
                received += len(piece)
    whole = len(await good(client))
    assert received < whole
    assert (received > 0) == (kind in ("stall_body", "drip"))


async def test_trickles_and_stalls_that_end(client: Client) -> None:
    did = client.network.dids[0]
    await client.network.set_faults([Fault(kind="drip", path="com.atproto.sync.getRepoStatus", seconds=0)])
    assert (await client.xrpc(0, "com.atproto.sync.getRepoStatus", did=did)).json["active"] is True
    await client.network.set_faults([Fault(kind="stall", seconds=0.01)])
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.repo(did)


async def test_a_host_that_is_down_refuses_and_comes_back(client: Client) -> None:
    whole = await good(client)
    did = client.network.dids[0]
    url = client.network.hosts[0].url
    await client.network.set_faults([Fault(kind="down", host=url)])
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.repo(did)
    assert (await client.repo(client.network.dids[1])).status == 200
    await client.network.set_faults([])
    assert (await client.repo(did)).body == whole
    assert client.network.hosts[0].url == url


async def test_a_host_may_go_down_after_some_requests(client: Client) -> None:
    did = client.network.dids[0]
    await client.network.set_faults([Fault(kind="down", host=0, after=2)])
    assert [(await client.repo(did)).status for _ in range(2)] == [200, 200]
    for _ in range(2):
        with pytest.raises((aiohttp.ClientConnectionError, ConnectionResetError)):
            await client.repo(did)


async def test_the_directory_and_web_servers_have_faults_of_their_own() -> None:
    options = LocalnetOptions(hosts=1, repos=4, seed=5, median_records=5, states={"web": 1})
    async with LocalNetwork(options) as network, client_of(network) as client:
        web = next(did for did in network.dids if did.startswith("did:web:"))
        plc = next(did for did in network.dids if did.startswith("did:plc:"))
        web_url = f"http://localhost:{web.rpartition('%3A')[2]}/.well-known/did.json"
        await network.set_faults([Fault(kind="status", host="plc", did=plc), Fault(kind="malformed_json", host="web")])
        assert (await client.get(f"{network.plc_url}/{plc}")).status == 500
        assert (await client.get(web_url)).body.startswith(b'{"did"')
        assert (await client.repo(plc)).status == 200
        await network.set_faults([Fault(kind="status")])
        assert (await client.get(f"{network.plc_url}/{plc}")).status == 200
        assert (await client.repo(plc)).status == 500
        await network.set_faults([Fault(kind="down", host="plc"), Fault(kind="down", host="web", after=1)])
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get(f"{network.plc_url}/{plc}")
        assert (await client.get(web_url)).status == 200
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.get(web_url)


def test_which_request_gets_which_fault() -> None:
    table = FaultTable(["http://localhost:1", "http://localhost:2"])
    table.add(
        [
            Fault(kind="flip_byte"),
            Fault(kind="status", host="http://localhost:2/", did="did:plc:b"),
            Fault(kind="stall", path="com.atproto.sync.listRepos", times=1),
        ]
    )

    def kind(host: int | str, path: str, did: str) -> str | None:
        fault = table.take(host, path, did)
        return None if fault is None else fault.kind

    assert kind(0, "com.atproto.sync.getRepo", "did:plc:a") == "flip_byte"
    assert kind(0, "com.atproto.sync.getRepoStatus", "did:plc:b") is None
    assert kind(1, "com.atproto.sync.getRepoStatus", "did:plc:b") == "status"
    assert kind(1, "com.atproto.sync.getRepoStatus", "did:plc:a") is None
    assert [kind(0, "com.atproto.sync.listRepos", "") for _ in range(2)] == ["stall", None]
    assert kind("plc", "/{did}", "did:plc:a") is None


def test_the_callers_fault_is_not_counted_down() -> None:
    table, mine = FaultTable(["http://localhost:1"]), Fault(kind="status", times=1)
    table.add([mine])
    assert table.take(0, "x", "") is not None
    assert (mine.times, mine.shown) == (1, 0)
    table.clear()
    assert table.faults == []


def test_faults_as_json(tmp_path: Path) -> None:
    rows = [{"kind": "status", "host": 0, "times": 2, "status": 503}, {"kind": "drip", "seconds": 0.5, "did": None}]
    (tmp_path / "faults.json").write_text('{"faults": [{"kind": "reset", "bytes": 10}]}')
    assert parse_faults(rows) == (
        Fault(kind="status", host=0, times=2, status=503),
        Fault(kind="drip", seconds=0.5),
    )
    assert read_faults(tmp_path / "faults.json") == (Fault(kind="reset", bytes=10),)
    assert parse_faults([Fault(kind="reset", bytes=10).to_json() | {"after": 1}])[0].after == 1


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        [1],
        {"kinds": []},
        [{"host": 0}],
        [{"kind": "explode"}],
        [{"kind": "status", "color": 1}],
        [{"kind": "status", "times": "2"}],
        [{"kind": "status", "times": True}],
        [{"kind": "status", "after": None}],
        [{"kind": "down"}],
        [{"kind": "down", "host": 0, "did": "did:plc:a"}],
    ],
)
def test_faults_that_make_no_sense_are_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        parse_faults(wrong)


def test_faults_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("[")
    for name in ("broken.json", "none.json"):
        with pytest.raises(UsageError, match=name):
            read_faults(tmp_path / name)
    for host in (2, "http://localhost:3", -1):
        with pytest.raises(UsageError, match="host"):
            FaultTable(["http://localhost:1", "http://localhost:2"]).add([Fault(kind="status", host=host)])


def test_every_kind_of_fault_is_tested_here() -> None:
    text = Path(__file__).read_text()
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []
