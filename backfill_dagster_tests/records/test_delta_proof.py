"""What a partial repo proves: the rows of the whole repo or nothing, whatever changed and whatever the host left out.

Small changes of a repo that is not tiny are proven nearly always: bytes that are fetched follow what has changed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.atproto.cid import cid_of
from backfill_dagster.atproto.dag_cbor import encode_dag_cbor
from backfill_dagster.atproto.tid import tid_from_micros
from backfill_dagster.errors import InvalidRepoError
from backfill_dagster.records.delta import UnprovenError
from backfill_dagster.records.selection import Selection
from backfill_dagster_tests.atproto.build_repo import key_on_level
from backfill_dagster_tests.records.changing_repo import SELECTIONS, Moment, Refresher, keys_of_all_levels
from backfill_dagster_tests.records.fake_repo import NOON
from backfill_dagster_tests.records.hosts import CONTENTS, HOSTS, Change, answer, changed, changes, starts

KEYS = keys_of_all_levels()
SHARED = 2
"""Contents below this number are the same under every key."""

LIKE, POST = "app.bsky.feed.like", "app.bsky.feed.post"
LIKES = Refresher(Selection((LIKE,)))

rounds = st.tuples(changes(KEYS), HOSTS, st.booleans())


def block_of(key: str, number: int) -> bytes:
    return encode_dag_cbor({"n": number} if number < SHARED else {"key": key, "n": number})


def moment_of(*keys: str, number: int = CONTENTS - 1) -> Moment:
    return Moment({key: block_of(key, number) for key in keys})


def newer(moment: Moment, before: Moment) -> set[bytes]:
    return set(moment.blocks) - set(before.blocks)


@settings(deadline=None, derandomize=True, database=None, max_examples=600)
@given(st.sampled_from(list(SELECTIONS)), starts(KEYS), st.lists(rounds, min_size=1, max_size=5))
def test_whatever_a_host_sends_the_rows_are_right_or_unproven(
    selection: str, filled: list[str], told: list[tuple[list[Change], tuple[str, int], bool]]
) -> None:
    refresher = Refresher(SELECTIONS[selection])
    now = moment_of(*filled)
    known, past = refresher.fetch(now), [now]
    for what, host, asks_again in told:
        now = changed(now, what, KEYS, block_of)
        sent = answer(host, past, now)
        # The moment that is known is the last of the past: what nobody could use doesn't become a base.
        with suppress(UnprovenError, InvalidRepoError):
            known = refresher.refresh(known, now, sent)
            past.append(now)
            continue
        if asks_again:
            known = refresher.fetch(now)
            past.append(now)


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(st.sampled_from(list(SELECTIONS)), starts(KEYS), st.data())
def test_an_honest_host_always_proves_what_is_new_or_edited(
    selection: str, filled: list[str], data: st.DataObject
) -> None:
    refresher = Refresher(SELECTIONS[selection])
    before = moment_of(*filled)
    known = refresher.fetch(before)
    puts = st.lists(st.tuples(st.integers(0, len(KEYS) - 1), st.integers(SHARED, CONTENTS - 1)), max_size=6)
    for put in data.draw(st.lists(puts, min_size=1, max_size=4)):
        now = Moment({**before.records, **{KEYS[at]: block_of(KEYS[at], number) for at, number in put}})
        known = refresher.refresh(known, now, newer(now, before))
        before = now


WEIGHTS = {
    "app.bsky.actor.profile": 1,
    LIKE: 40,
    POST: 25,
    "app.bsky.feed.repost": 8,
    "app.bsky.graph.block": 2,
    "app.bsky.graph.follow": 15,
    "app.bsky.graph.listitem": 5,
    "com.example.thing": 4,
}
COMMON = {
    "posts": Selection((POST,)),
    "posts and follows": Selection((POST, "app.bsky.graph.follow")),
    "small ones": Selection(("app.bsky.actor.profile", "app.bsky.graph.block", "com.example.thing")),
    "the graph": Selection(("app.bsky.graph.*",)),
    "the network's own": Selection(("app.bsky.*",)),
}


def changed_at_random(lot: random.Random, moment: Moment, kind: str, now_us: int) -> Moment:
    """One small change; `now_us` is when."""
    records = dict(moment.records)
    if kind == "delete":
        del records[lot.choice(sorted(records))]
    elif kind == "edit":
        records[lot.choice(sorted(records))] = encode_dag_cbor({"at": now_us})
    else:
        (collection,) = lot.choices(list(WEIGHTS), list(WEIGHTS.values()))
        when = now_us if kind == "write" else lot.randrange(NOON, now_us)
        records[f"{collection}/{tid_from_micros(when, 7)}"] = encode_dag_cbor({"at": now_us})
    return Moment(records)


def test_small_changes_are_proven() -> None:
    lot = random.Random(7)
    now_us, start = NOON, Moment({})
    while len(start.records) < 600:
        now_us += lot.randrange(10**6, 10**9)
        start = changed_at_random(lot, start, "write", now_us)
    unproven: Counter[str] = Counter()
    kinds = ("write", "import", "edit", "delete")
    for selection in COMMON.values():
        refresher = Refresher(selection)
        for kind in kinds:
            known, before = refresher.fetch(start), start
            for step in range(12):
                now = changed_at_random(lot, before, kind, now_us + (step + 1) * 10**9)
                try:
                    known = refresher.refresh(known, now, newer(now, before))
                except UnprovenError:
                    unproven[kind] += 1
                    known = refresher.fetch(now)
                before = now
    print(f"unproven of {12 * len(COMMON)} each: {dict(unproven)}")
    assert [unproven[kind] for kind in kinds[:3]] == [0, 0, 0]
    assert unproven["delete"] <= 3


def filled(*levels: int, collection: str = LIKE, start: int = 0) -> list[str]:
    """Keys in order, one on each of the levels."""
    keys: list[str] = []
    for wanted in levels:
        keys.append(key_on_level(wanted, collection, start))
        start = int(keys[-1][-6:]) + 1
    return keys


def refreshed(refresher: Refresher, before: Moment, now: Moment, *forgotten: str) -> set[str]:
    """Keys of the rows after an honest host's answer, but for the records that it forgets."""
    sent = newer(now, before) - {cid_of(now.records[key]) for key in forgotten}
    return set(refresher.refresh(refresher.fetch(before), now, sent).rows)


def test_a_border_that_was_deleted_takes_no_neighbour_with_it() -> None:
    low, border, high, last = filled(0, 1, 2, 0)
    before, now = moment_of(low, border, high, last), moment_of(low, high, last)
    assert refreshed(LIKES, before, now) == {low, high, last}
    # Nothing on its other side: the subtree behind the border stays absent, and reaches over the hole.
    border, low, high, last = filled(1, 0, 2, 0)
    before, now = moment_of(border, low, high, last), moment_of(low, high, last)
    assert refreshed(LIKES, before, now) == {low, high, last}


def test_a_collection_that_vanishes_between_two_others() -> None:
    first, middle, last = filled(0, 1, 0), filled(0, 2, 0, collection=POST), filled(0, 1, collection="z.z.z")
    before, now = moment_of(*first, *middle, *last), moment_of(*first, *last)
    assert refreshed(Refresher(Selection((POST,))), before, now) == set()
    assert refreshed(LIKES, before, now) == set(first)


@pytest.mark.parametrize("collection", ["a.a.a", "app.bsky.feed.m", "z.z.z"])
def test_the_first_key_of_a_collection_elsewhere(collection: str) -> None:
    wanted = filled(0, 0, 1, 0, 2, 0, 1, 0)
    before = moment_of(*wanted)
    for on in range(4):
        assert refreshed(LIKES, before, moment_of(*wanted, key_on_level(on, collection))) == set(wanted)


def test_a_record_that_is_forgotten_is_not_taken_for_unchanged() -> None:
    keys = filled(0, 1, 0)
    before, edited = moment_of(*keys), Moment(dict(moment_of(*keys).records) | {keys[0]: block_of(keys[0], 2)})
    assert refreshed(LIKES, before, edited) == set(keys)
    with pytest.raises(UnprovenError, match=f"lists {keys[0]} with another content than before and leaves it out"):
        refreshed(LIKES, before, edited, keys[0])
    with pytest.raises(UnprovenError, match="leaves it out"):
        refreshed(LIKES, moment_of(*keys[1:]), before, keys[0])
    assert refreshed(Refresher(Selection((POST,))), before, edited, keys[0]) == set()


def test_old_content_under_a_new_key_comes_without_its_block() -> None:
    keys = filled(0, 0, 0)
    before, now = moment_of(*keys[:2], number=0), moment_of(*keys, number=0)
    with pytest.raises(UnprovenError, match="leaves it out"):
        refreshed(LIKES, before, now)


def test_a_commit_over_the_tree_of_before() -> None:
    keys = [*filled(0, 1, 0), *filled(0, 2, collection=POST)]
    before = moment_of(*keys)
    known = LIKES.fetch(before)
    assert LIKES.refresh(known, before, ()).rows == known.rows
    with pytest.raises(UnprovenError, match="in the subtree after the beginning"):
        LIKES.refresh(replace(known, marks=()), before, ())
    rows_alone = Refresher(Selection((LIKE, POST)))
    with pytest.raises(UnprovenError):
        rows_alone.refresh(replace(rows_alone.fetch(before), marks=()), before, ())


def test_a_tree_all_of_one_collection_needs_no_marks() -> None:
    before = moment_of(*filled(0, 1, 0, 2, 0))
    known = LIKES.fetch(before)
    assert LIKES.refresh(replace(known, marks=()), before, ()).rows == known.rows


def test_what_is_not_wanted_needs_no_proof() -> None:
    likes, posts = filled(0, 3), filled(2, 0, 1, 0, 2, collection=POST)
    before, now = moment_of(*likes, *posts[:3], posts[4]), moment_of(*likes, *posts)
    forgotten = {now.tree.subtrees[-1].cid, cid_of(now.records[posts[3]])}
    assert forgotten < newer(now, before)
    for refresher, is_proven in ((LIKES, True), (Refresher(Selection((POST,))), False)):
        with nullcontext() if is_proven else pytest.raises(UnprovenError):
            known = refresher.fetch(before)
            assert refresher.refresh(known, now, newer(now, before) - forgotten).rows == known.rows


def test_blocks_of_no_use_are_passed_over() -> None:
    keys = filled(0, 1, 0, 2, 0)
    before, now = moment_of(*keys[1:]), moment_of(*keys)
    strange: Sequence[bytes] = [encode_dag_cbor({"a": 1}), b"\xff", *before.blocks.values()]
    assert set(LIKES.refresh(LIKES.fetch(before), now, newer(now, before), strange).rows) == set(keys)


def test_a_border_that_was_deleted_beside_a_subtree_of_two_collections() -> None:
    """Its subtree has a mark, of one row fewer than there are between the neighbours now."""
    likes, posts, (high,) = filled(1, 0), filled(0, collection=POST), filled(2, collection="z.z.z")
    before, now = moment_of(*likes, *posts, high), moment_of(likes[1], *posts, high)
    with pytest.raises(UnprovenError, match="it can't be told what is in the subtree after the beginning"):
        refreshed(LIKES, before, now)
    assert refreshed(Refresher(Selection((POST,))), before, now) == set(posts)
