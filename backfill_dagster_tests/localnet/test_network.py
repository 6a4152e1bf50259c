"""The servers, asked over HTTP: PLC directory, did:web, every method of a host, every account state."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import libipld
import pytest

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster.localnet.accounts import HostStatus
from backfill_dagster_tests.localnet.client import Client, client_of
from backfill_dagster_tests.localnet.plain_reader import read_repo, sections_of

STATES = {
    "deactivated": 1,
    "suspended": 1,
    "takendown": 1,
    "deleted": 1,
    "moved": 1,
    "web": 2,
    "tombstoned": 1,
    "unknown": 1,
    "no_pds": 1,
    "other_method": 1,
    "not_a_did": 7,
}
OPTIONS = LocalnetOptions(hosts=2, repos=20, seed=5, median_records=30, states=STATES)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with LocalNetwork(OPTIONS) as network, client_of(network) as one:
        yield one


def did_with(client: Client, outcome: str, method: str = "did:plc:") -> str:
    found = (d for d, e in client.network.expected.items() if e["outcome"] == outcome and d.startswith(method))
    return next(found)


async def test_the_source_has_every_state_and_expected_says_how_each_ends(client: Client) -> None:
    outcomes = Counter(entry["outcome"] for entry in client.network.expected.values())
    assert outcomes == {
        "complete": 13,
        "deactivated": 1,
        "suspended": 1,
        "taken_down": 1,
        "not_found": 1,
        "unresolvable": 4,
        "invalid_did": 7,
    }
    assert list(client.network.expected) == client.network.dids
    assert len(set(client.network.dids)) == 28
    assert all(not e["records"] for e in client.network.expected.values() if e["outcome"] != "complete")


async def test_a_document_names_the_host_and_the_key(client: Client) -> None:
    for host in client.network.hosts:
        for did in host.dids:
            if not did.startswith("did:plc:"):
                continue
            got = await client.get(f"{client.network.plc_url}/{did}")
            assert got.headers["content-type"] == "application/did+ld+json"
            assert got.json["id"] == did
            assert got.json["service"][0]["serviceEndpoint"] == host.url
            (method,) = got.json["verificationMethod"]
            account = client.network.account(did)
            if method["type"] == "Multikey":
                assert "did:key:" + method["publicKeyMultibase"] == account.key.did_key
            else:
                raw = libipld.decode_multibase(method["publicKeyMultibase"])[1]
                assert raw == account.key.public_bytes(compressed=False)
            data = (await client.get(f"{client.network.plc_url}/{did}/data")).json
            assert data["verificationMethods"]["atproto"] == account.key.did_key
            assert data["services"]["atproto_pds"]["endpoint"] == host.url


async def test_dids_without_a_document_answer_as_the_directory_does(client: Client) -> None:
    plc = client.network.plc_url
    unresolvable = [d for d, e in client.network.expected.items() if e["outcome"] == "unresolvable"]
    statuses = {}
    for did in unresolvable:
        got = await client.get(f"{plc}/{did}")
        statuses[str(client.network.world.accounts[did].identity) if did.startswith("did:plc") else "key"] = got.status
        if got.status == 200:
            assert got.json["service"] == []
            assert (await client.get(f"{plc}/{did}/data")).json["services"] == {}
    assert statuses == {"tombstoned": 410, "unknown": 404, "no_pds": 200, "key": 404}
    assert (await client.get(f"{plc}/did:plc:{'a' * 24}")).json == {
        "message": f"DID not registered: did:plc:{'a' * 24}"
    }
    assert (await client.get(f"{plc}/{client.network.active[0]}/nothing")).status == 404
    assert (await client.get(f"{plc}/_health")).status == 200


async def test_a_did_web_account_answers_at_its_own_port(client: Client) -> None:
    did = did_with(client, "complete", "did:web:")
    port = did.removeprefix("did:web:localhost%3A")
    got = await client.get(f"http://localhost:{port}/.well-known/did.json")
    assert got.json["id"] == did
    assert (await client.get(f"http://localhost:{port}/else")).status == 404
    assert (await client.get(f"{client.network.plc_url}/{did}")).status == 404
    commit, _, _ = read_repo((await client.repo(did)).body)
    assert commit["did"] == did
    for status, code in (("tombstoned", 410), ("unknown", 404)):
        await client.network.control.status({"did": did, "status": status})
        assert (await client.get(f"http://localhost:{port}/.well-known/did.json")).status == code


async def test_get_repo_is_chunked_and_gzipped_on_demand(client: Client) -> None:
    did = client.network.active[0]
    plain = await client.repo(did)
    assert plain.headers["content-type"] == "application/vnd.ipld.car"
    assert plain.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in plain.headers
    assert "content-encoding" not in plain.headers
    url = f"{client.network.hosts[client.network.account(did).host].url}/xrpc/com.atproto.sync.getRepo"
    for accepts in ("gzip, br", "deflate, GZIP;q=0.5", "*"):
        packed = await client.get(url, {"Accept-Encoding": accepts}, did=did)
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.gunzipped == plain.body
    refused = await client.get(url, {"Accept-Encoding": "gzip;q=0, br"}, did=did)
    assert refused.body == plain.body
    commit, records, _ = read_repo(plain.body)
    assert commit["did"] == did
    assert len(records) == sum(client.network.expected[did]["records"].values())


async def test_since_over_http(client: Client) -> None:
    did = client.network.active[0]
    rev = read_repo((await client.repo(did)).body)[0]["rev"]
    assert len((await client.repo(did, since=rev)).body) == 59
    assert (await client.repo(did, since="")).body == (await client.repo(did)).body
    bad = await client.repo(did, since="yesterday")
    assert (bad.status, bad.json["error"]) == (400, "InvalidRequest")


@pytest.mark.parametrize(
    ("outcome", "error", "status"),
    [
        ("deactivated", "RepoDeactivated", "deactivated"),
        ("suspended", "RepoSuspended", "suspended"),
        ("taken_down", "RepoTakendown", "takendown"),
    ],
)
async def test_a_refused_repo_names_its_state(client: Client, outcome: str, error: str, status: str) -> None:
    did = did_with(client, outcome)
    host = client.network.account(did).host
    for method in ("getRepo", "getLatestCommit"):
        got = await client.xrpc(host, f"com.atproto.sync.{method}", did=did)
        assert (got.status, got.json["error"]) == (400, error)
        assert did in got.json["message"]
    got = await client.xrpc(host, "com.atproto.sync.getRepoStatus", did=did)
    assert got.json == {"did": did, "active": False, "status": status}


async def test_a_deleted_or_unknown_repo_is_not_found(client: Client) -> None:
    for did in (did_with(client, "not_found"), "did:plc:" + "b" * 24):
        for method in ("getRepo", "getRepoStatus", "getLatestCommit"):
            got = await client.xrpc(0, f"com.atproto.sync.{method}", did=did)
            assert (got.status, got.json["error"]) == (400, "RepoNotFound")
    for bad in ("", "nonsense", "did:plc:", "did:PLC:x"):
        assert (await client.xrpc(0, "com.atproto.sync.getRepo", did=bad)).json["error"] == "InvalidRequest"


async def test_an_account_that_moves_does_so_at_the_first_get_repo_at_its_old_host(client: Client) -> None:
    (mover,) = (a for a in client.network.world.accounts.values() if a.flips)
    old, new = mover.named_host, mover.host
    assert client.network.expected[mover.did]["outcome"] == "complete"
    assert mover.did in client.network.hosts[old].dids

    async def named() -> str:
        got = await client.get(f"{client.network.plc_url}/{mover.did}")
        url: str = got.json["service"][0]["serviceEndpoint"]
        return url

    status = await client.xrpc(old, "com.atproto.sync.getRepoStatus", did=mover.did)
    assert (status.status, await named()) == (400, client.network.hosts[old].url)
    assert (await client.repo(mover.did, new)).status == 200
    assert await named() == client.network.hosts[old].url
    assert (await client.repo(mover.did, old)).json["error"] == "RepoNotFound"
    assert await named() == client.network.hosts[new].url
    assert mover.did in client.network.hosts[new].dids
    assert (await client.repo(mover.did, old)).json["error"] == "RepoNotFound"
    assert client.network.expected[mover.did]["outcome"] == "complete"


async def test_status_and_latest_commit_say_what_the_repo_says(client: Client) -> None:
    did = client.network.active[0]
    host = client.network.account(did).host
    root, _ = sections_of((await client.repo(did)).body)
    commit, _, _ = read_repo((await client.repo(did)).body)
    latest = await client.xrpc(host, "com.atproto.sync.getLatestCommit", did=did)
    assert latest.json == {"cid": libipld.encode_cid(root), "rev": commit["rev"]}
    status = await client.xrpc(host, "com.atproto.sync.getRepoStatus", did=did)
    assert status.json == {"did": did, "active": True, "rev": commit["rev"]}


async def test_list_repos_pages_through_a_host(client: Client) -> None:
    rows, cursor = [], {}
    while True:
        page = (await client.xrpc(0, "com.atproto.sync.listRepos", limit="4", **cursor)).json
        rows += page["repos"]
        assert len(page["repos"]) <= 4
        if "cursor" not in page:
            break
        cursor = {"cursor": page["cursor"]}
    there = [a for a in client.network.world.accounts.values() if a.host == 0 and a.status != HostStatus.DELETED]
    assert [row["did"] for row in rows] == sorted(a.did for a in there)
    assert {row["did"] for row in rows if not row["active"]} == {a.did for a in there if a.status != HostStatus.ACTIVE}
    for row in rows:
        assert row.get("status") == (None if row["active"] else client.network.account(row["did"]).status.value)
        root, _ = sections_of(client.network.world.shelf.get(row["did"]).car())
        assert row["head"] == libipld.encode_cid(root)
    for bad in ("0", "1001", "x", "²"):
        assert (await client.xrpc(0, "com.atproto.sync.listRepos", limit=bad)).status == 400


async def test_list_records_pages_newest_first_and_reversed(client: Client) -> None:
    did = max(client.network.active, key=lambda d: client.network.expected[d]["records"].get("like", 0))
    host = client.network.account(did).host
    _, records, _ = read_repo((await client.repo(did)).body)
    likes = {key: block for key, block in records.items() if key.startswith("app.bsky.feed.like/")}
    assert len(likes) > 10
    for reverse in ("false", "true"):
        uris, cursor = [], {}
        while True:
            asked = {"repo": did, "collection": "app.bsky.feed.like", "limit": "7", "reverse": reverse, **cursor}
            page = (await client.xrpc(host, "com.atproto.repo.listRecords", **asked)).json
            uris += [row["uri"] for row in page["records"]]
            for row in page["records"]:
                block = likes[row["uri"].removeprefix(f"at://{did}/")]
                assert row["value"] == libipld.decode_dag_cbor(block)
                assert len(row["cid"]) == 59
            if "cursor" not in page:
                break
            cursor = {"cursor": page["cursor"]}
        assert uris == [f"at://{did}/{key}" for key in sorted(likes, reverse=reverse == "false")]
    by_handle = client.network.account(did).handle
    got = await client.xrpc(host, "com.atproto.repo.listRecords", repo=by_handle, collection="app.bsky.feed.like")
    assert len(got.json["records"]) == min(50, len(likes))
    assert (await client.xrpc(host, "com.atproto.repo.listRecords", repo=did, collection="")).status == 400
    assert (
        await client.xrpc(host, "com.atproto.repo.listRecords", repo=did, collection="x", limit="101")
    ).status == 400


async def test_describe_repo_handles_and_the_rest(client: Client) -> None:
    did = client.network.active[0]
    host = client.network.account(did).host
    got = (await client.xrpc(host, "com.atproto.repo.describeRepo", repo=did)).json
    _, records, _ = read_repo((await client.repo(did)).body)
    assert got["collections"] == sorted({key.partition("/")[0] for key in records})
    assert got["didDoc"]["id"] == got["did"] == did
    resolved = await client.xrpc(host, "com.atproto.identity.resolveHandle", handle=got["handle"])
    assert resolved.json == {"did": did}
    assert (await client.xrpc(host, "com.atproto.identity.resolveHandle", handle="no.test")).status == 400
    assert (await client.xrpc(host, "com.atproto.server.describeServer")).status == 200
    assert (await client.xrpc(host, "com.atproto.nothing.here")).status == 501
    assert (await client.get(client.network.hosts[0].url + "/xrpc/_health")).json == {"version": "localnet"}
    assert (await client.get(client.network.hosts[0].url + "/_health")).json == {"version": "localnet"}


async def test_head_has_headers_and_no_body(client: Client) -> None:
    did = client.network.active[0]
    url = f"{client.network.hosts[client.network.account(did).host].url}/xrpc/com.atproto.sync.getRepo"
    async with client.session.head(url, params={"did": did}) as response:
        assert response.status == 200
        assert response.headers["ratelimit-remaining"] == "5999"
        assert await response.read() == b""


async def test_two_networks_of_one_seed_are_the_same_but_for_ports() -> None:
    async with LocalNetwork(OPTIONS) as one, LocalNetwork(OPTIONS) as two:
        assert {h.url for h in one.hosts}.isdisjoint(h.url for h in two.hosts)
        plc = [did for did in one.dids if not did.startswith("did:web:")]
        assert plc == [did for did in two.dids if not did.startswith("did:web:")]
        for did in plc:
            assert one.expected[did] == two.expected[did]
        for did in [d for d in one.active if d in plc]:
            assert one.world.shelf.get(did).car() == two.world.shelf.get(did).car()


async def test_expected_counts_are_what_the_repos_hold() -> None:
    async with LocalNetwork(LocalnetOptions(hosts=3, repos=60, seed=8, median_records=40)) as network:
        states = Counter(entry["outcome"] for entry in network.expected.values())
        assert states["complete"] >= 50
        for did in network.active:
            account = network.account(did)
            await_counts = network.expected[did]["records"]
            _, records, _ = read_repo(network.world.shelf.get(account.did).car())
            assert sum(await_counts.values()) == len(records)


async def test_the_shelf_forgets_and_makes_again_the_same() -> None:
    options = LocalnetOptions(hosts=1, repos=6, seed=2, median_records=40, states={}, cache_mib=0)
    async with LocalNetwork(options) as network, client_of(network) as client:
        first = [(await client.repo(did)).body for did in network.dids]
        assert sum(network.world.shelf.has(did) for did in network.dids) == 1
        assert [(await client.repo(did)).body for did in network.dids] == first


async def test_without_states_everyone_is_active_and_one_host_has_no_movers() -> None:
    async with LocalNetwork(LocalnetOptions(hosts=1, repos=7, seed=2, states={})) as network:
        assert network.active == network.dids
        assert len(network.dids) == 7
    async with LocalNetwork(LocalnetOptions(hosts=1, repos=100, seed=2)) as network:
        assert not any(account.flips for account in network.world.accounts.values())


async def test_requests_are_counted_by_server_and_path(client: Client) -> None:
    assert client.network.requests() == {}
    did = client.network.active[0]
    await client.get(f"{client.network.plc_url}/{did}")
    await client.get(f"{client.network.plc_url}/{did}/data")
    assert client.network.pds_requests() == 0
    await client.repo(did)
    await client.repo(did)
    url = client.network.hosts[client.network.account(did).host].url
    plc = {"/{did}": 1, "/{did}/data": 1}
    assert client.network.requests() == {client.network.plc_url: plc, url: {"com.atproto.sync.getRepo": 2}}
    assert client.network.pds_requests() == 2


def test_options_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"hosts": 0},
        {"hosts": 101},
        {"repos": -1},
        {"repos": 100_001},
        {"median_records": 0},
        {"max_records": 0},
        {"states": {"asleep": 1}},
        {"states": {"moved": -1}},
        {"repos": 2, "states": {"moved": 2, "deleted": 1}},
    ):
        with pytest.raises(UsageError):
            LocalnetOptions(**wrong)  # type: ignore[arg-type]
    assert LocalnetOptions(repos=2, states={"not_a_did": 5, "moved": 2}).state_counts()["not_a_did"] == 5
