"""The local network leaves out of a `since` what the reference PDS leaves out, whatever was written before."""

from __future__ import annotations

import random
from collections.abc import Mapping

import cbrrr
import pytest

from backfill_dagster.localnet.repo_writer import blocks_of, commit_changes, keys_of, write_repo
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tids import tid
from backfill_dagster_tests.localnet.plain_reader import sections_of
from backfill_dagster_tests.reference.accounts import Account, Json
from backfill_dagster_tests.reference.servers import ReferenceServers

pytestmark = pytest.mark.live

KEY = SigningKey("k256", 12345)
COLLECTIONS = ("com.example.a", "com.example.b", "com.example.c")
KEYS = [f"{collection}/{rkey}" for collection in COLLECTIONS for rkey in range(14)]
Changes = Mapping[str, str | None]
"""Key -> the record's text, None to delete it."""

A, B, C = KEYS[0], KEYS[1], KEYS[20]
SCRIPT: tuple[Changes, ...] = (
    {A: "one"},
    {A: "two"},
    {A: "one"},
    {A: None},
    {A: "one"},
    {B: "one"},
    {A: None},
    {A: "one"},
    {A: "two"},
    {key: f"number {number}" for number, key in enumerate(KEYS[2:])},
    {},
    {C: "one"},
    {C: "two"},
    {C: "number 18"},
    dict.fromkeys(KEYS[14:28]),
    {C: "one", KEYS[21]: "one"},
    dict.fromkeys(KEYS[2:14]),
    dict.fromkeys(KEYS[28:]),
    {A: None},
    {B: None, C: None, KEYS[21]: None},
    {A: "one"},
)


class Twice:
    """One history, written to both.

    What one commit both takes away and adds again under another key is left out: the reference PDS then loses blocks.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._did = account.did
        self._repo = write_repo(self._did, KEY, [], created_us=0, clock_id=1)
        self._here: dict[str, str] = {}
        self._revs = [(self._rev_there(), self._repo.rev)]

    def _rev_there(self) -> str:
        return str(self._account.xrpc.get("com.atproto.sync.getLatestCommit", did=self._did)["rev"])

    def write(self, changes: Changes) -> None:
        writes, blocks = [], {}
        for key, text in changes.items():
            collection, _, rkey = key.partition("/")
            where = {"collection": collection, "rkey": rkey}
            if text is None:
                writes.append({"$type": "delete", **where})
                blocks[key] = None
                self._here.pop(key)
                continue
            value: Json = {"$type": collection, "text": text}
            writes.append({"$type": "update" if key in self._here else "create", **where, "value": value})
            blocks[key] = cbrrr.encode_dag_cbor(value)
            self._here[key] = text
        if not writes:
            return
        self._account.apply(writes, validate=False)
        at_us = len(self._revs) * 1_000_000
        self._repo = commit_changes(self._repo, self._did, KEY, blocks, rev_us=at_us)
        self._revs.append((self._rev_there(), tid(at_us, 1)))

    def compare(self) -> int:
        """Every `since` of the past; returns how many blocks were left out in all."""
        left_out = 0
        whole = self._sections(self._there())
        assert whole == self._sections(self._repo.car())
        assert list(keys_of(self._repo.root, blocks_of(self._repo))) == sorted(self._here)
        for there, here in self._revs:
            found = self._sections(self._there(there))
            assert found == self._sections(self._repo.car(here))
            left_out += len(whole - found)
        return left_out

    def _there(self, since: str | None = None) -> bytes:
        given = {"since": since} if since else {}
        car: bytes = self._account.xrpc.get("com.atproto.sync.getRepo", did=self._did, **given)
        return car

    @staticmethod
    def _sections(car: bytes) -> set[bytes]:
        """CIDs of all blocks but the commit, which has another signature; whether that is there."""
        root, sections = sections_of(car)
        cids = {cid for cid, _ in sections}
        return (cids - {root}) | ({b"the commit"} if root in cids else set())


def test_a_story_with_every_kind_of_change(servers: ReferenceServers) -> None:
    both = Twice(Account(servers, "told-twice"))
    for changes in SCRIPT:
        both.write(changes)
        both.compare()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_story(servers: ReferenceServers, seed: int) -> None:
    rolls = random.Random(seed)
    both = Twice(Account(servers, f"rolled-{seed}"))
    here: set[str] = set()
    for _ in range(60):
        kind, some = rolls.random(), rolls.sample(KEYS, rolls.randint(1, 6))
        changes: Changes
        if kind < 0.4 and here:
            changes = dict.fromkeys(here.intersection(some))
        elif kind < 0.6 and here:
            changes = {rolls.choice(sorted(here)): f"text {rolls.randint(1, 5)}"}
        else:
            changes = {key: f"text {rolls.randint(1, 9)}" for key in some if key not in here}
        both.write(changes)
        here = {key for key in here | set(changes) if changes.get(key, "") is not None}
    assert both.compare() > 100
