"""One change to a repo between two fetches: whatever it is, a refresh has the rows that a fresh backfill has."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libipld
import pytest

from backfill_dagster.localnet.tree import layer_of
from backfill_dagster_tests.worker.refreshes import EVERYTHING, HAS_THE_REPO, Hand, refreshing, whole_rows
from backfill_dagster_tests.worker.tiny import tiny

POST, LIKE, PROFILE = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.actor.profile"
THING, FOREIGN = "com.example.thing", "net.example.thing"
DATE = "2025-05-06T07:08:09Z"
FIRST, SECOND = {"text": "first"}, {"text": "second"}
ONE, TWO, THREE = f"{POST}/3lqabcdefgh2a", f"{POST}/3lqabcdefgh2b", f"{POST}/3lqabcdefgh2c"
SELF = f"{PROFILE}/self"
REPLY = {"text": "second", "reply": {"root": {"uri": "at://x/y/z", "cid": "c"}, "parent": {"uri": "u", "cid": "c"}}}
BROKEN = {"text": 5}
SHARED = {"$type": THING, "createdAt": DATE}
"""The same block in whatever collection it is."""

NO_CBOR = base64.b64encode(b"\xff not DAG-CBOR").decode()
NO_OBJECT = base64.b64encode(libipld.encode_dag_cbor(["a", "list"])).decode()

Step = Callable[[Hand], Awaitable[object]]


@dataclass(frozen=True)
class Change:
    """What an account does after the first fetch, and what it has to have done before."""

    now: tuple[Step, ...]
    before: tuple[Step, ...] = ()


def change(*now: Step, before: tuple[Step, ...] = ()) -> Change:
    return Change(now, before)


def put(key: str, record: Mapping[str, Any] | None = None, block: str | None = None) -> Step:
    return lambda hand: hand.put(key, record, block)


def delete(*keys: str) -> Step:
    return lambda hand: hand.delete(*keys)


def key_on(layer: int, collection: str, number: int = 0) -> str:
    """The first keys of a collection that live on a layer of the tree."""
    keys = (f"{collection}/k{rkey:05d}" for rkey in itertools.count())
    return next(itertools.islice((one for one in keys if layer_of(one.encode()) == layer), number, None))


# Neighbours in the tree: a leaf of LOW keys, then a key above it, another leaf, and a key above that one.
LOW, HIGH = key_on(0, "com.example.gap.a"), key_on(3, "com.example.gap.b")
LATER, OVER = key_on(0, "com.example.gap.c"), key_on(3, "com.example.gap.d")
HIDDEN = key_on(3, "net.example.gap")
BEHIND = key_on(0, "sh.example.gap")

CHANGES = {
    "a record added": change(lambda hand: hand.add(POST, FIRST)),
    "many added": change(lambda hand: hand.add(POST, *({"text": f"number {n}"} for n in range(40)))),
    "some added in commits of their own": change(put(ONE, FIRST), put(TWO, SECOND), put(THREE, FIRST)),
    "a record edited": change(put(ONE, SECOND), before=(put(ONE, FIRST),)),
    "a post that becomes a reply": change(put(ONE, REPLY), before=(put(ONE, SECOND),)),
    "a record deleted": change(delete(ONE), before=(put(ONE, FIRST),)),
    "one of three deleted": change(delete(TWO), before=(put(ONE, FIRST), put(TWO, FIRST), put(THREE, FIRST))),
    "edited back to its first content": change(put(ONE, SECOND), put(ONE, FIRST), before=(put(ONE, FIRST),)),
    "edited to what a neighbour says": change(put(ONE, SECOND), before=(put(ONE, FIRST), put(TWO, SECOND))),
    "two that change places": change(put(ONE, SECOND), put(TWO, FIRST), before=(put(ONE, FIRST), put(TWO, SECOND))),
    "deleted and added again": change(delete(ONE), put(ONE, FIRST), before=(put(ONE, FIRST),)),
    "deleted and added under another key": change(delete(ONE), put(TWO, FIRST), before=(put(ONE, FIRST),)),
    "added and deleted again": change(put(ONE, FIRST), delete(ONE)),
    "two of equal content added": change(put(ONE, FIRST), put(TWO, FIRST)),
    "one added with content of before": change(put(TWO, FIRST), before=(put(ONE, FIRST),)),
    "one of two with equal content deleted": change(delete(ONE), before=(put(ONE, FIRST), put(TWO, FIRST))),
    "a collection vanished": change(lambda hand: hand.vanish(LIKE)),
    "everything vanished": change(lambda hand: hand.vanish()),
    "everything vanished and one is back": change(
        lambda hand: hand.vanish(), put(ONE, FIRST), before=(put(ONE, FIRST),)
    ),
    "the first record of a collection": change(put(f"{THING}/a", {})),
    "the first record of all": change(put(ONE, FIRST), before=(lambda hand: hand.vanish(),)),
    "an unwanted record added": change(put(f"{FOREIGN}/a", {})),
    "an unwanted record edited": change(put(f"{FOREIGN}/a", FIRST), before=(put(f"{FOREIGN}/a", {}),)),
    # In a repo of one node, so that nothing else takes a whole fetch.
    "content of an unwanted record added": change(
        put(f"{THING}/a", SHARED), before=(lambda hand: hand.vanish(), put(f"{FOREIGN}/a", SHARED))
    ),
    "content of an unwanted record added under a TID": change(
        put(f"{THING}/3lqabcdefgh2a", SHARED), before=(lambda hand: hand.vanish(), put(f"{FOREIGN}/a", SHARED))
    ),
    "the profile edited": change(put(SELF, {"displayName": "now"}), before=(put(SELF, {"displayName": "then"}),)),
    "an empty commit": change(lambda hand: hand.rotate_key()),
    "nothing": change(),
    "imported anew": change(lambda hand: hand.import_anew()),
    "imported anew as it was": change(lambda hand: hand.import_anew(sign_again=False)),
    "imported anew and written to": change(lambda hand: hand.import_anew(sign_again=False), put(ONE, FIRST)),
    "edited, then imported anew": change(put(ONE, SECOND), Hand.import_anew, before=(put(ONE, FIRST),)),
    "added into quarantine": change(put(ONE, BROKEN), put(TWO, block=NO_CBOR), put(THREE, block=NO_OBJECT)),
    "edited into quarantine": change(put(ONE, BROKEN), before=(put(ONE, FIRST),)),
    "mended": change(put(ONE, FIRST), before=(put(ONE, BROKEN), put(TWO, block=NO_CBOR))),
    "deleted from quarantine": change(delete(ONE), before=(put(ONE, BROKEN), put(TWO, BROKEN))),
    "another broken in another way": change(put(ONE, block=NO_CBOR), before=(put(ONE, BROKEN),)),
    "a key that is none": change(put(f"{POST}/..", FIRST), put(f"{POST}/a:b_c~d.e-f", FIRST)),
    # The leaf that is left lies between the same keys as before, but they were not its only neighbours.
    "a leaf and the key before it deleted": change(
        delete(HIGH, LATER), before=(put(LOW), put(HIGH), put(LATER), put(OVER))
    ),
    "a leaf and the key after it deleted": change(
        delete(LOW, HIGH), before=(put(LOW), put(HIGH), put(LATER), put(OVER))
    ),
    "a leaf deleted with an unwanted key before it": change(
        delete(HIDDEN, BEHIND), before=(lambda hand: hand.vanish("sh."), put(LOW), put(HIDDEN), put(BEHIND))
    ),
    "the tree is what was its leaf": change(
        delete(HIGH, LATER), before=(lambda hand: hand.vanish(), put(LOW), put(HIGH), put(LATER))
    ),
    "the tree is what was its subtree on the left": change(
        lambda hand: hand.delete(*hand.held("com.example.gap.c"), *hand.held("com.example.gap.d")),
        before=(
            lambda hand: hand.vanish(),
            lambda hand: hand.add("com.example.gap.a", *({"n": n} for n in range(30))),
            put(key_on(5, "com.example.gap.c")),
            put(OVER),
        ),
    ),
}
"""Each on an account of its own, whose repo is that of any other account besides."""


async def do(steps: tuple[Step, ...], hand: Hand) -> None:
    for step in steps:
        await step(hand)


ONE_BATCH = {"batch_size": 100, "shard_size": 100}
CONFIGS: dict[str, dict[str, Any]] = {
    "everything": EVERYTHING,
    "all of a namespace": {},
    "some collections": {"record_types": [POST, PROFILE, "com.example.gap.a", "com.example.gap.c"]},
    "all but what lies between": {"record_types": ["app.bsky.*", "com.example.gap.*", "sh.example.*"]},
    "a time range": EVERYTHING | {"time_range": {"start_date": "2024-06-01", "end_date": "2025-09-30"}},
    "a time range that has begun since": EVERYTHING | {"time_range": {"start_date": "2025-12-31"}},
    "structure, cbor": EVERYTHING | {"processing": {"verify": "structure"}, "records": {"raw": "cbor"}},
    "off, none": EVERYTHING | {"processing": {"verify": "off"}, "records": {"raw": "none"}},
    "small batches and shards": {"processing": {"batch_size": 3, "shard_size": 12}},
}


@pytest.mark.parametrize("config", CONFIGS)
async def test_every_change(folder: Path, config: str) -> None:
    async with tiny(repos=len(CHANGES), median=20, seed=8) as network:
        hands = {name: Hand(network, did) for name, did in zip(CHANGES, network.dids, strict=True)}
        for name, hand in hands.items():
            await do(CHANGES[name].before, hand)
        changes = CONFIGS[config]
        changes = {**changes, "processing": ONE_BATCH | changes.get("processing", {})}
        with refreshing(folder, network, **changes) as one:
            one.names = {hand.did: name for name, hand in hands.items()}
            await one.begin()
            for name, hand in hands.items():
                await do(CHANGES[name].now, hand)
            ran = await one.refresh()
            assert set(ran.outcomes.values()) <= set(HAS_THE_REPO)


@pytest.mark.parametrize("match", ["uri", "subject_uri"])
async def test_filters(folder: Path, match: str) -> None:
    async with tiny(repos=3, median=25) as network:
        hands = [Hand(network, did) for did in network.dids]
        ours, theirs = "at://did:plc:x/app.bsky.feed.post/ours", "at://did:plc:x/app.bsky.feed.post/theirs"
        likes = {uri: {"subject": {"uri": uri, "cid": "c"}} for uri in (ours, theirs)}
        a, b, c = (f"{LIKE}/{rkey}" for rkey in ("3lqabcdefgh2a", "3lqabcdefgh2b", "self"))
        await hands[1].vanish()
        for hand in hands:
            await hand.put(a, likes[ours])
            await hand.put(b, likes[theirs])
        listed = folder / "listed.csv"
        uris = [ours, *(f"at://{hand.did}/{key}" for hand in hands for key in (a, c))]
        listed.write_text("uri\n" + "\n".join(uris) + "\n")
        wanted = {"record_type": LIKE, "match": match, "source": {"type": "file", "path": str(listed)}}
        with refreshing(folder, network, record_types=[LIKE, POST], filters=[wanted]) as one:
            await one.begin()
            swaps, adds, leaves = hands
            await swaps.put(a, likes[theirs])
            await swaps.put(b, likes[ours])
            await adds.put(c, likes[ours])
            await adds.add(POST, FIRST)
            await leaves.delete(a)
            assert set((await one.refresh()).outcomes.values()) <= set(HAS_THE_REPO)
            # A block that is there already, in a collection that nobody asked for.
            await adds.put(f"{FOREIGN}/a", {"$type": LIKE, "createdAt": DATE} | likes[ours])
            await one.refresh()
            await adds.put(c, {"createdAt": DATE} | likes[ours])
            assert set((await one.refresh()).outcomes.values()) <= set(HAS_THE_REPO)
            await leaves.put(a, likes[ours])
            await swaps.put(a, likes[ours])
            assert set((await one.refresh()).outcomes.values()) <= set(HAS_THE_REPO)
            assert whole_rows(one.state)


async def test_records_that_only_their_key_dates(folder: Path) -> None:
    """What can't be judged in time is no row, and may be judged by another key later."""
    undated = {"createdAt": None, "n": 1}
    old, new = f"{THING}/3kaaaaaaaaa2a", f"{THING}/3lqabcdefgh2a"
    async with tiny(repos=1) as network:
        hand = Hand(network, network.dids[0])
        await hand.put(f"{THING}/no-tid", undated)
        await hand.put(old, undated)
        with refreshing(folder, network, **EVERYTHING, time_range={"start_date": "2024-12-01"}) as one:
            await one.begin()
            for key in (f"{THING}/neither", new):
                await hand.put(key, undated)
                await one.refresh()
            uris = {dict(row)["uri"] for row in whole_rows(one.state)[hand.did]}
            assert f"at://{hand.did}/{new}" in uris
            assert not any(uri.endswith(("/no-tid", "/neither", old)) for uri in uris)


async def test_more_collections_than_one_repo_may_have(folder: Path) -> None:
    """Which ones are too many depends on all of them: one less in front lets another in behind."""
    async with tiny(repos=1) as network:
        hand = Hand(network, network.dids[0])
        for number in range(204):
            await hand.put(f"com.example.kind{number:03d}/one", {"n": number})
        with refreshing(folder, network, record_types=["com.example.*"]) as one:
            first = await one.begin()
            assert first.results[hand.did].quarantined == 4
            await hand.delete("com.example.kind003/one", "com.example.kind202/one")
            ran = await one.refresh()
            assert ran.results[hand.did].quarantined == 2


@pytest.mark.parametrize("raw", [("json", "cbor"), ("cbor", "json"), ("json", "none"), ("none", "json")], ids="-".join)
async def test_another_form_of_the_record_takes_a_whole_fetch(folder: Path, raw: tuple[str, str]) -> None:
    async with tiny(repos=2) as network:
        with refreshing(folder, network, **EVERYTHING, records={"raw": raw[0]}) as one:
            await one.begin()
        await Hand(network, network.dids[0]).add(POST, FIRST)
        with refreshing(folder, network, **EVERYTHING, records={"raw": raw[1]}) as one:
            ran = await one.refresh()
            assert set(ran.outcomes.values()) == {"complete"}
            assert set((await one.refresh()).outcomes.values()) <= set(HAS_THE_REPO)
