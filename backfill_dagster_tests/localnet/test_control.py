"""The control endpoint over HTTP: what it changes is what the servers then say."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import libipld
import pytest

from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster_tests.localnet.client import Client, client_of
from backfill_dagster_tests.localnet.plain_reader import has_good_signature, read_repo, sections_of

OPTIONS = LocalnetOptions(hosts=2, repos=6, seed=6, median_records=30, states={})
LIKE = "app.bsky.feed.like"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with LocalNetwork(OPTIONS) as network, client_of(network) as one:
        yield one


async def test_added_records_are_one_commit_that_since_finds(client: Client) -> None:
    did = client.network.dids[0]
    before = (await client.control(f"/account?did={did}")).json
    likes = before["expected"]["records"][LIKE.rpartition(".")[2]]
    subject = {"uri": "at://did:plc:x/app.bsky.feed.post/3k", "cid": "b"}
    rows = [
        {"collection": LIKE, "record": {"subject": subject}},
        {"collection": LIKE, "rkey": "mine", "record": {"n": 1}},
    ]
    added = (await client.control("/add", {"did": did, "records": rows})).json
    commit, records, _ = read_repo((await client.repo(did)).body)
    assert added["rev"] == commit["rev"] > before["rev"]
    key = client.network.account(did).key
    assert has_good_signature(commit, key.curve, key.public_bytes())
    assert added["uris"][1] == f"at://{did}/{LIKE}/mine"
    first = libipld.decode_dag_cbor(records[added["uris"][0].removeprefix(f"at://{did}/")])
    assert first == {"$type": LIKE, "createdAt": "2025-12-31T00:00:01.000Z", "subject": subject}
    assert client.network.expected[did]["records"]["like"] == likes + 2
    root, delta = sections_of((await client.repo(did, since=before["rev"])).body)
    assert libipld.encode_cid(root) == added["commit"]
    assert {records[u.removeprefix(f"at://{did}/")] for u in added["uris"]} < {block for _, block in delta}
    again = (await client.control("/add", {"did": did, "records": rows[:1]})).json
    assert again["rev"] > added["rev"]


async def test_records_may_hold_links_bytes_nothing_dated_or_any_block(client: Client) -> None:
    did = client.network.dids[0]
    link = {"$link": "bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454"}
    record = {"ref": link, "raw": {"$bytes": "AAEC"}, "createdAt": None, "$type": None}
    raw = base64.b64encode(b"\xff\xff not cbor").decode()
    rows = [
        {"collection": "com.example.a", "rkey": "1", "record": record},
        {"collection": "com.example.a", "rkey": "2", "block_base64": raw},
        {"collection": "com.example.a", "rkey": "3", "record": ["no", "object"]},
        {"collection": "app.bsky.feed.post", "rkey": "4", "block_base64": raw},
        {"collection": "app.bsky.feed.post", "rkey": "5", "record": {"text": "r", "reply": {}}},
    ]
    before = client.network.expected[did]["records"]
    assert (await client.control("/add", {"did": did, "records": rows})).status == 200
    _, records, _ = read_repo((await client.repo(did)).body)
    value = libipld.decode_dag_cbor(records["com.example.a/1"])
    assert value == {"ref": libipld.decode_multibase(link["$link"])[1], "raw": b"\x00\x01\x02"}
    assert records["com.example.a/2"] == b"\xff\xff not cbor"
    after = client.network.expected[did]["records"]
    grown = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
    assert grown == {"com.example.a": 3, "post": 1, "reply": 1}


async def test_edits_and_deletions(client: Client) -> None:
    did = client.network.dids[1]
    keys = list(read_repo((await client.repo(did)).body)[1])
    collection, _, rkey = keys[0].partition("/")
    await client.control("/edit", {"did": did, "collection": collection, "rkey": rkey, "record": {"text": "other"}})
    records = read_repo((await client.repo(did)).body)[1]
    assert libipld.decode_dag_cbor(records[keys[0]])["text"] == "other"
    await client.control("/delete", {"did": did, "collection": collection, "rkey": rkey})
    await client.control("/delete", {"did": did, "keys": keys[1:3]})
    assert list(read_repo((await client.repo(did)).body)[1]) == keys[3:]
    assert sum(client.network.expected[did]["records"].values()) == len(keys) - 3


async def test_moves_now_and_at_the_next_request(client: Client) -> None:
    did = client.network.dids[0]
    urls = [host.url for host in client.network.hosts]
    moved = (await client.control("/move", {"did": did, "to": urls[1]})).json
    assert moved["host_url"] == urls[1]
    assert did in client.network.hosts[1].dids
    assert (await client.repo(did, 0)).json["error"] == "RepoNotFound"
    assert (await client.repo(did, 1)).status == 200
    await client.control("/move", {"did": did, "to": 0, "when": "on_get_repo"})
    assert did in client.network.hosts[1].dids
    assert (await client.repo(did, 1)).json["error"] == "RepoNotFound"
    assert did in client.network.hosts[0].dids


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("deactivated", "deactivated"),
        ("suspended", "suspended"),
        ("takendown", "taken_down"),
        ("deleted", "not_found"),
        ("throttled", "http_error"),
        ("desynchronized", "http_error"),
        ("tombstoned", "unresolvable"),
        ("unknown", "unresolvable"),
        ("no_pds", "unresolvable"),
    ],
)
async def test_statuses_there_and_back(client: Client, status: str, outcome: str) -> None:
    did = client.network.dids[0]
    whole = (await client.repo(did)).body
    got = (await client.control("/status", {"did": did, "status": status})).json
    assert got["expected"] == {"outcome": outcome, "records": {}}
    if outcome == "http_error":
        assert (await client.repo(did)).status == 500
        answer = (await client.xrpc(0, "com.atproto.sync.getRepoStatus", did=did)).json
        assert answer == {"did": did, "active": False, "status": status}
    back = (await client.control("/status", {"did": did, "status": "active"})).json
    assert back["expected"]["outcome"] == "complete"
    assert (await client.repo(did)).body == whole


async def test_keys_rotate_with_and_without_a_new_signature(client: Client) -> None:
    did = client.network.dids[0]
    old = client.network.account(did).key
    rotated = (await client.control("/rotate_key", {"did": did})).json
    new = client.network.account(did).key
    assert rotated["key"] == new.did_key != old.did_key
    commit = read_repo((await client.repo(did)).body)[0]
    assert has_good_signature(commit, new.curve, new.public_bytes())
    published = (await client.get(f"{client.network.plc_url}/{did}/data")).json["verificationMethods"]["atproto"]
    assert published == new.did_key
    assert rotated["expected"]["outcome"] == "complete"
    unsigned = (await client.control("/rotate_key", {"did": did, "sign_again": False})).json
    assert unsigned["expected"] == {"outcome": "invalid_repo", "records": {}}
    assert client.network.expected_structure[did]["outcome"] == "complete"
    assert read_repo((await client.repo(did)).body)[0] == commit
    await client.control("/add", {"did": did, "records": [{"collection": "com.example.a", "record": {}}]})
    assert client.network.expected[did]["outcome"] == "complete"


async def test_an_imported_repo_is_new_in_all_its_blocks(client: Client) -> None:
    did = client.network.dids[0]
    before = (await client.control(f"/account?did={did}")).json
    old_commit, records, old_blocks = read_repo((await client.repo(did)).body)
    got = (await client.control("/import_anew", {"did": did})).json
    assert got["rev"] > before["rev"]
    assert got["expected"] == before["expected"]
    whole = (await client.repo(did)).body
    commit, now, blocks = read_repo(whole)
    assert (commit["rev"], commit["data"], now) == (got["rev"], old_commit["data"], records)
    key = client.network.account(did).key
    assert has_good_signature(commit, key.curve, key.public_bytes())
    assert set(blocks) - set(old_blocks) == {sections_of(whole)[0]}
    assert sections_of((await client.repo(did, since=before["rev"])).body) == sections_of(whole)
    assert sections_of((await client.repo(did, since=got["rev"])).body)[1] == []


async def test_an_imported_repo_that_nobody_signed_again_has_its_commit_of_before(client: Client) -> None:
    did = client.network.dids[0]
    before = (await client.control(f"/account?did={did}")).json
    blocks = dict(sections_of((await client.repo(did)).body)[1])
    await client.control("/rotate_key", {"did": did, "sign_again": False})
    got = (await client.control("/import_anew", {"did": did, "sign_again": False})).json
    assert got["commit"] == before["commit"]
    assert got["rev"] > before["rev"]
    assert got["expected"]["outcome"] == "invalid_repo"
    latest = (await client.xrpc(0, "com.atproto.sync.getLatestCommit", did=did)).json
    assert latest == {"cid": before["commit"], "rev": got["rev"]}
    root, sections = sections_of((await client.repo(did, since=before["rev"])).body)
    assert libipld.encode_cid(root) == before["commit"]
    assert dict(sections) == blocks
    added = await client.control("/add", {"did": did, "records": [{"collection": "com.example.a", "record": {}}]})
    assert added.json["rev"] > got["rev"]
    delta = sections_of((await client.repo(did, since=got["rev"])).body)[1]
    assert 3 <= len(delta) < len(blocks)


async def test_faults_and_requests_are_set_and_read(client: Client) -> None:
    did = client.network.dids[0]
    answer = await client.control("/faults", {"faults": [{"kind": "status", "times": 1, "status": 502}]})
    assert answer.json["faults"] == [{"kind": "status", "after": 0, "times": 1, "status": 502, "shown": 0}]
    assert (await client.repo(did)).status == 502
    await client.control("/faults", {"faults": [{"kind": "html"}]})
    assert [fault["kind"] for fault in (await client.control("/faults")).json["faults"]] == ["status", "html"]
    await client.control("/faults", {"faults": [], "replace": True})
    assert (await client.control("/faults")).json == {"faults": []}
    url = client.network.hosts[0].url
    assert (await client.control("/requests")).json == {"requests": {url: {"com.atproto.sync.getRepo": 1}}}
    await client.control("/requests/reset", {})
    assert (await client.control("/requests")).json == {"requests": {}}


async def test_state_says_everything(client: Client) -> None:
    state = (await client.control("/state")).json
    assert set(state) == {"hosts", "accounts", "expected", "faults", "requests"}
    assert state["expected"] == client.network.expected
    assert set(state["accounts"]) == set(client.network.dids)
    assert [host["url"] for host in state["hosts"]] == [host.url for host in client.network.hosts]
    assert (await client.control("/_health")).status == 200


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("/add", {"did": "did:plc:nobody", "records": [{"collection": "a.b.c", "record": {}}]}, "no account"),
        ("/add", {"did": "{did}"}, "records"),
        ("/add", {"did": "{did}", "records": [{"collection": "a.b.c"}]}, "block_base64"),
        ("/add", {"did": "{did}", "records": [{"collection": "a.b.c", "record": {"x": 1.5}}]}, "record"),
        ("/add", {"did": "{did}", "records": [{"collection": "a.b.c", "block_base64": "!"}]}, "block_base64"),
        ("/add", {"did": "{did}", "records": ["x"]}, "collection"),
        ("/edit", {"did": "{did}", "collection": "a.b.c", "record": {}}, "rkey"),
        ("/delete", {"did": "{did}", "keys": [1]}, "keys"),
        ("/delete", {"did": "{did}", "keys": "a.b.c/1"}, "keys"),
        ("/delete", {"did": "{did}", "collection": "a.b.c", "rkey": "1"}, "no record a.b.c/1"),
        ("/add", {"did": "{did}", "records": [{"collection": "a.b.c", "rkey": 1, "record": {}}]}, "rkey"),
        ("/move", {"did": "{did}", "to": 9}, "no host 9"),
        ("/move", {"did": "{did}", "to": "elsewhere"}, "host number or URL"),
        ("/move", {"did": "{did}", "to": 1, "when": "later"}, "on_get_repo"),
        ("/status", {"did": "{did}", "status": "asleep"}, "unknown status"),
        ("/faults", {"faults": 1}, "list"),
        ("/import_anew", {}, "did"),
        ("/import_anew", {"did": "did:plc:nobody"}, "no account"),
        ("/status", [], "not a JSON object"),
    ],
)
async def test_what_cannot_be_done_is_a_400_that_says_why(client: Client, route: str, body: object, words: str) -> None:
    if isinstance(body, dict) and body.get("did") == "{did}":
        body = {**body, "did": client.network.dids[0]}
    got = await client.control(route, body)
    assert got.status == 400
    assert words in got.json["error"]


async def test_other_routes_and_bodies_that_are_no_json(client: Client) -> None:
    assert (await client.control("/nothing")).status == 404
    assert "POST /add" in (await client.control("/add")).json["error"]
    async with client.session.post(client.network.control_url + "/add", data=b"{") as response:
        assert response.status == 400
        assert "not JSON" in (await response.json())["error"]
