"""Refreshes against the reference PDS: whatever an account has done since, the rows are those of a fresh backfill."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from backfill_dagster_tests.reference.accounts import Account, Json, import_anew, move, take_down
from backfill_dagster_tests.reference.judge import as_records, as_written, listed_values, parquet_rows
from backfill_dagster_tests.reference.servers import ReferenceServers
from backfill_dagster_tests.reference.writes import DATE, LIKE, POST, SOMETHING, THING
from backfill_dagster_tests.worker.refreshes import HAS_THE_REPO, refreshing

pytestmark = pytest.mark.live

KINDS = {"record_types": ["app.bsky.*", "com.example.*"]}
PROFILE = "app.bsky.actor.profile"
POSTS = 60
ONE, TWO, THREE = "3lqabcdefgh2a", "3lqabcdefgh2b", "3lqabcdefgh2c"


@dataclass(frozen=True)
class Accounts:
    """Some accounts of the reference servers, as a network for `refreshing`."""

    plc_url: str
    dids: list[str]


def post(text: str) -> Json:
    return {"text": text, "createdAt": DATE}


def write(kind: str, collection: str, rkey: str, value: Json | None = None) -> Json:
    return {"$type": kind, "collection": collection, "rkey": rkey} | ({} if value is None else {"value": value})


def settle(account: Account) -> None:
    """What every account has before it is first fetched."""
    account.create_all(POST, [post(f"number {number}") for number in range(POSTS)])
    account.put(PROFILE, "self", {"displayName": "then"})
    account.apply(
        [
            write("create", POST, ONE, post("one")),
            write("create", THING, ONE, {"text": "one"}),
            write("create", THING, TWO, {"text": "two"}),
        ]
    )


def edit_and_back(account: Account) -> None:
    account.put(POST, ONE, post("other"))
    account.put(POST, ONE, post("one"))


def delete(account: Account, collection: str, rkey: str) -> None:
    account.delete(f"at://{account.did}/{collection}/{rkey}")


def delete_and_add(account: Account) -> None:
    delete(account, POST, ONE)
    account.create(POST, post("one"), ONE)


def delete_things(account: Account) -> None:
    account.apply([write("delete", THING, ONE), write("delete", THING, TWO)])


def delete_half(account: Account) -> None:
    posts = account.xrpc.get("com.atproto.repo.listRecords", repo=account.did, collection=POST, limit=POSTS // 2)
    account.apply([write("delete", POST, one["uri"].rpartition("/")[2]) for one in posts["records"]])


def exchange_in_one_commit(account: Account) -> None:
    account.apply([write("update", THING, ONE, {"text": "two"}), write("update", THING, TWO, {"text": "one"})])


CHANGES: dict[str, Callable[[Account], object]] = {
    "nothing": lambda account: None,
    "a-post-added": lambda account: account.create(POST, post("new")),
    "many-added": lambda account: account.create_all(LIKE, [like(number) for number in range(50)]),
    "edited": lambda account: account.put(POST, ONE, post("edited")),
    "deleted": lambda account: delete(account, POST, ONE),
    "half-deleted": delete_half,
    "edited-and-back": edit_and_back,
    "deleted-and-added": delete_and_add,
    "equal-content": lambda account: account.create(THING, {"text": "one"}, THREE),
    "twins": lambda account: account.create_all(THING, [{"text": "twin"}, {"text": "twin"}]),
    "vanished": delete_things,
    "new-collection": lambda account: account.create(LIKE, like(0)),
    "unwanted": lambda account: account.create(SOMETHING, {"text": "unwanted"}),
    "profile": lambda account: account.put(PROFILE, "self", {"displayName": "now"}),
    "quarantine": lambda account: account.create(POST, {"text": 5, "createdAt": DATE}, THREE, validate=False),
}


def like(number: int) -> Json:
    return {"subject": {"uri": f"at://did:web:example.com/{POST}/{number}", "cid": SOME_CID}, "createdAt": DATE}


SOME_CID = "bafyreihffx5a2e7k5uwrmmgofbvzujc5cmw5h4espouwuxt3liqoflx3ee"


def network_of(servers: ReferenceServers, accounts: Sequence[Account]) -> Accounts:
    return Accounts(servers.plc_url, [account.did for account in accounts])


async def test_one_change_each(folder: Path, servers: ReferenceServers) -> None:
    accounts = {name: Account(servers, f"delta-{number}") for number, name in enumerate(CHANGES)}
    for account in accounts.values():
        settle(account)
    network = network_of(servers, list(accounts.values()))
    with refreshing(folder, network, **KINDS) as one:
        one.names = {account.did: name for name, account in accounts.items()}
        first = await one.begin()
        for name, account in accounts.items():
            CHANGES[name](account)
        ran = await one.refresh()
        assert set(ran.outcomes.values()) <= set(HAS_THE_REPO)
        assert ran.outcomes[accounts["nothing"].did] == "unchanged"
        assert ran.bytes_fetched < first.bytes_fetched / 2
        listed = listed_values(accounts["edited"].xrpc, [accounts["edited"].did])
        rows = [row for row in parquet_rows(one.state) if row["author"] == accounts["edited"].did]
        assert as_written(rows) == as_records(listed)


async def test_accounts_that_go_and_come_back(folder: Path, servers: ReferenceServers) -> None:
    gone, hidden, rotated, imported, moved = (
        Account(servers, f"back-{name}") for name in ("gone", "hidden", "rotated", "imported", "moved")
    )
    accounts = [gone, hidden, rotated, imported, moved]
    for account in accounts:
        settle(account)
    with refreshing(folder, network_of(servers, accounts), **KINDS, identity={"cache_days": 0}) as one:
        await one.begin()
        gone.xrpc.post("com.atproto.server.deactivateAccount", {})
        take_down(servers, {"did": hidden.did})
        servers.rotate_key(rotated.did, "p256")
        import_anew(servers, imported)
        move(servers, moved, servers.second_pds())
        ran = await one.refresh()
        # Nothing is signed by the key that an account has at its new host until it writes there.
        outcomes = ["deactivated", "taken_down", "complete", "invalid_repo", "invalid_repo"]
        assert [ran.outcomes[account.did] for account in accounts] == outcomes
        gone.xrpc.post("com.atproto.server.activateAccount")
        for account in accounts:
            if account is not hidden:
                account.create(POST, post("back"))
        ran = await one.refresh()
        assert [ran.outcomes[account.did] for account in accounts].count("complete") == 4


async def test_a_block_that_the_pds_has_lost(folder: Path, servers: ReferenceServers) -> None:
    """It deletes what one commit takes from one key and gives to another; then nobody gets the whole repo."""
    account = Account(servers, "exchanges")
    settle(account)
    with refreshing(folder, network_of(servers, [account]), **KINDS) as one:
        await one.begin()
        exchange_in_one_commit(account)
        await one.refresh()
        delete_things(account)
        assert (await one.refresh()).outcomes == {account.did: "complete"}


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_random_story(folder: Path, servers: ReferenceServers, seed: int) -> None:
    rolls = random.Random(seed)
    account = Account(servers, f"story-{seed}")
    kinds = ("com.example.a", "com.example.b", "net.example.c")
    keys = [(kind, f"{number:02d}") for kind in kinds for number in range(14)]
    here: set[tuple[str, str]] = set()
    with refreshing(folder, network_of(servers, [account]), record_types=["com.example.*"]) as one:
        await one.begin()
        for number in range(40):
            some = set(rolls.sample(keys, rolls.randint(1, 8)))
            writes = [write("delete", *key) for key in sorted(some & here)] if rolls.random() < 0.5 else []
            if not writes:
                new = sorted(some - here)
                writes = [write("create", *key, {"text": f"text {rolls.randint(1, 6)}"}) for key in new]
            if not writes:
                writes = [write("update", *rolls.choice(sorted(here)), {"text": f"text {rolls.randint(1, 6)}"})]
            account.apply(writes, validate=False)
            for one_write in writes:
                key = (one_write["collection"], one_write["rkey"])
                (here.discard if one_write["$type"] == "delete" else here.add)(key)
            if number % 4 == 3:
                assert (await one.refresh()).outcomes[account.did] in HAS_THE_REPO
        rows = as_written(parquet_rows(one.state))
        listed = listed_values(account.xrpc, [account.did])
        assert rows == as_records({uri: value for uri, value in listed.items() if "/net." not in uri})
