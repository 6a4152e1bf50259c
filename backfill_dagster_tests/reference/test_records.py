"""Every record that the reference PDS lists is in the Parquet, exactly as it lists it, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libipld
import pytest

from backfill_dagster.atproto.cid import cid_bytes
from backfill_dagster.report import verify_backfill
from backfill_dagster_tests.reference.accounts import Account, Xrpc, take_down
from backfill_dagster_tests.reference.judge import (
    as_records,
    as_written,
    counts_by_type,
    exactly,
    listed_values,
    parquet_rows,
    results,
    typed_columns,
)
from backfill_dagster_tests.reference.servers import ReferenceServers
from backfill_dagster_tests.reference.writes import DATE, POST, THING, write_everyday, write_oddities
from backfill_dagster_tests.road import opened, run_all, write_config

KINDS = ["app.bsky.*", "chat.bsky.*", "com.example.*", "net.example.*"]
BUSY_RECORDS = 2100
ALL_TYPES = [
    "app.bsky.actor.profile",
    "app.bsky.feed.threadgate",
    "app.bsky.graph.list",
    "app.bsky.graph.listitem",
    "block",
    "chat.bsky.actor.declaration",
    "com.example.thing",
    "follow",
    "like",
    "net.example.some-Where.someThing",
    "post",
    "reply",
    "repost",
]


@dataclass
class World:
    """Accounts that have written; the tests only read them."""

    servers: ReferenceServers
    accounts: dict[str, Account]
    quarantined: dict[str, str]
    hidden: str

    @property
    def dids(self) -> list[str]:
        return [account.did for account in self.accounts.values()]

    @property
    def not_json(self) -> str:
        return next(uri for uri, reason in self.quarantined.items() if reason.startswith("a key is"))

    @property
    def xrpc(self) -> Xrpc:
        return Xrpc(self.servers.pds_url)


@pytest.fixture(scope="module")
def world(servers: ReferenceServers) -> World:
    names = ("everyday", "friend", "odd", "busy", "empty", "emptied", "partly-hidden")
    accounts = {name: Account(servers, name) for name in names}
    write_everyday(accounts["everyday"], accounts["friend"])
    quarantined = write_oddities(accounts["odd"])
    busy = [{"text": f"post {number}", "createdAt": DATE} for number in range(BUSY_RECORDS)]
    accounts["busy"].create_all(POST, busy)
    written = [accounts["emptied"].create(THING, {"n": number})["uri"] for number in range(3)]
    for uri in written:
        accounts["emptied"].delete(uri)
    accounts["partly-hidden"].create(POST, {"text": "shown", "createdAt": DATE})
    subject = accounts["partly-hidden"].create(POST, {"text": "taken down", "createdAt": DATE})
    take_down(servers, subject)
    return World(servers, accounts, quarantined, subject["uri"])


def write_world_config(folder: Path, world: World, **changes: Any) -> Path:
    return write_config(folder, world.servers.plc_url, world.dids, **({"record_types": KINDS} | changes))


async def test_the_parquet_has_what_list_records_shows(folder: Path, world: World) -> None:
    listed = listed_values(world.xrpc, world.dids)
    with opened(write_world_config(folder, world)) as state:
        came = await run_all(state)
        assert came.outcomes == dict.fromkeys(world.dids, "complete")
        rows, broken = parquet_rows(state), parquet_rows(state, "quarantine")
        assert verify_backfill(state) == []
    assert sorted(came.rows) == ALL_TYPES
    kept = {row["uri"]: row for row in rows}
    hidden = kept.pop(world.hidden)  # a record-level takedown stays in the CAR
    assert hidden["text"] == "taken down"
    assert set(world.quarantined) == {row["uri"] for row in broken}
    for row in broken:
        # JSON can't hold one of them; then there is the block.
        row["record"] = row["record_json"] or json.dumps(libipld.decode_dag_cbor(row["record_cbor"]))
        assert row["reason"].startswith(world.quarantined[row["uri"]])
    assert [row["uri"] for row in broken if row["record_json"] is None] == [world.not_json]
    assert as_written([*kept.values(), *broken]) == as_records(listed)
    assert came.rows == counts_by_type(listed[uri] for uri in kept) + Counter(post=1)


async def test_the_typed_columns_say_what_the_record_says(folder: Path, world: World) -> None:
    listed = listed_values(world.xrpc, world.dids)
    with opened(write_world_config(folder, world)) as state:
        await run_all(state)
        rows = {row["uri"]: row for row in parquet_rows(state) if row["uri"] != world.hidden}
    for uri, row in rows.items():
        expected = typed_columns(listed[uri])
        for name in ("labels", "embed", "facets"):
            if row.get(name) is not None:
                row[name] = exactly(json.loads(row[name]))
        assert {name: row[name] for name in expected} == expected


async def test_the_ledger_has_what_the_host_says_of_each_repo(folder: Path, world: World) -> None:
    listed = listed_values(world.xrpc, world.dids)
    with opened(write_world_config(folder, world)) as state:
        came = await run_all(state)
        items = results(state, came)
    assert set(items) == set(world.dids)
    for account in world.accounts.values():
        result = items[account.did]
        latest = world.xrpc.get("com.atproto.sync.getLatestCommit", did=account.did)
        described = world.xrpc.get("com.atproto.repo.describeRepo", repo=account.did)
        assert (result.commit_cid, result.rev) == (latest["cid"], latest["rev"])
        assert (result.last_complete_rev, result.signature_checked) == (latest["rev"], True)
        assert (result.handle, result.pds_endpoint) == (account.handle, world.servers.pds_url)
        own = Counter(uri.split("/")[3] for uri in [*listed, world.hidden] if uri.startswith(f"at://{account.did}/"))
        assert result.records_seen_by_collection == own
        assert sorted(own) == sorted(described["collections"])
        assert result.records_total + result.quarantined == own.total()
    assert items[world.accounts["busy"].did].records_by_type == {"post": BUSY_RECORDS}
    assert items[world.accounts["emptied"].did].records_by_type == {}
    assert items[world.accounts["odd"].did].quarantined == len(world.quarantined)


async def test_raw_blocks_hash_to_the_listed_cid(folder: Path, world: World) -> None:
    listed = listed_values(world.xrpc, world.dids)
    with opened(write_world_config(folder, world, records={"raw": "cbor"})) as state:
        await run_all(state)
        rows = parquet_rows(state)
    # What JSON can't hold needs no quarantine here.
    assert {row["uri"] for row in rows} == set(listed) - set(world.quarantined) | {world.not_json, world.hidden}
    for row in rows:
        assert cid_bytes(row["cid"])[4:] == hashlib.sha256(row["record"]).digest()
        assert row["uri"] == world.hidden or row["cid"] == listed[row["uri"]]["cid"]
        assert libipld.decode_dag_cbor(row["record"])["$type"] == row["collection"]


async def test_a_second_run_asks_for_no_repo(folder: Path, world: World) -> None:
    with opened(write_world_config(folder, world)) as state:
        world.servers.take_get_repos()
        await run_all(state)
        assert sorted(asked["did"] for asked in world.servers.take_get_repos()) == sorted(world.dids)
        before = as_written(parquet_rows(state))
        again = await run_all(state)
        assert world.servers.take_get_repos() == []
        assert again.done.results == {}
        assert again.outcomes == dict.fromkeys(world.dids, "complete")
        assert as_written(parquet_rows(state)) == before


async def test_a_refresh_has_the_edits_and_not_what_was_deleted(folder: Path, servers: ReferenceServers) -> None:
    account, still = Account(servers, "editor"), Account(servers, "still")
    uris = [account.create(THING, {"n": number})["uri"] for number in range(4)]
    still.create(THING, {"n": 0})
    dids, xrpc = [account.did, still.did], Xrpc(servers.pds_url)
    with opened(write_config(folder, servers.plc_url, dids, record_types=KINDS)) as state:
        await run_all(state)
        assert as_written(parquet_rows(state)) == as_records(listed_values(xrpc, dids))
        account.apply(
            [
                {"$type": "update", "collection": THING, "rkey": uris[0].split("/")[4], "value": {"n": "edited"}},
                {"$type": "delete", "collection": THING, "rkey": uris[1].split("/")[4]},
                {"$type": "create", "collection": POST, "value": {"text": "new", "createdAt": DATE}},
            ]
        )
        came = await run_all(state, refresh=True)
        now = listed_values(xrpc, dids)
        assert as_written(parquet_rows(state)) == as_records(now)
        assert came.rows == counts_by_type(now.values()) == {THING: 4, "post": 1}
        assert verify_backfill(state) == []
