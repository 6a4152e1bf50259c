"""Deltas of selections that leave out records within a collection: time ranges, filters, purged records.

What had no row before says nothing then: it was left out, or is new, or moved here from where nobody looked at it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.atproto.cid import cid_of
from backfill_dagster.atproto.dag_cbor import decode_dag_cbor, encode_dag_cbor
from backfill_dagster.atproto.tid import is_tid, tid_from_micros
from backfill_dagster.errors import InvalidRepoError
from backfill_dagster.records.delta import UnprovenError, has_holes
from backfill_dagster.records.selection import RecordFilter, Selection
from backfill_dagster_tests.atproto.build_repo import DID, level
from backfill_dagster_tests.records.changing_repo import COLLECTIONS, SELECTIONS, Known, Moment, Refresher
from backfill_dagster_tests.records.hosts import CONTENTS, HOSTS, Change, answer, changed, changes, starts

LIKE, POST = "app.bsky.feed.like", "app.bsky.feed.post"
EARLY_US, MIDDLE_US, LATE_US = (1_700_000_000_000_000 + number * 10**13 for number in range(3))
EARLY, LATE = "2023-11-14T22:13:20Z", "2024-07-03T09:46:40Z"
SUBJECTS = ("at://a", "at://b")

CREATED = (EARLY, LATE, "nonsense", None, EARLY, LATE)
"""`createdAt` of each content; the last two are the same under every key."""


def keys() -> list[str]:
    """Two keys of each of three levels in each collection: one with a time in it, early or late, one without."""
    found = []
    for place, collection in enumerate(COLLECTIONS):
        start_us = LATE_US if place % 2 else EARLY_US
        for wanted in range(3):
            names = (f"{collection}/{tid_from_micros(start_us + number, 5)}" for number in range(10**4))
            others = (f"{collection}/{number:03x}" for number in range(10**4))
            found += [next(key for key in some if level(key) == wanted) for some in (names, others)]
    return sorted(found)


KEYS = keys()
LISTED = frozenset(f"at://{DID}/{key}" for key in KEYS[::3])


def block_of(key: str, number: int) -> bytes:
    record: dict[str, Any] = {"subject": {"uri": SUBJECTS[(number + len(key)) % 2]}}
    if number < CONTENTS - 2:
        record["key"] = key
    if CREATED[number] is not None:
        record["createdAt"] = CREATED[number]
    return encode_dag_cbor(record)


def refresher_of(selection: Selection, purged: frozenset[str] = frozenset()) -> Refresher:
    """With the judgement of single records written out again."""

    def judge(key: str, block: bytes) -> bool:
        collection, _, rkey = key.partition("/")
        record = decode_dag_cbor(block)
        for one in selection.filters:
            text = f"at://{DID}/{key}" if one.match == "uri" else record["subject"]["uri"]
            if one.record_type == collection and text not in one.uris:
                return False
        if not selection.has_time_range:
            return True
        written = {EARLY: EARLY_US, LATE: LATE_US}.get(record.get("createdAt", ""))
        if written is None:
            written = (LATE_US if COLLECTIONS.index(collection) % 2 else EARLY_US) if is_tid(rkey) else None
        return written is not None and (written > MIDDLE_US if selection.start_us else written < MIDDLE_US)

    return Refresher(selection, judge, purged)


ranges = st.sampled_from([{}, {"start_us": MIDDLE_US}, {"end_us": MIDDLE_US}])
filters = st.lists(
    st.one_of(
        st.builds(RecordFilter, st.sampled_from(COLLECTIONS), st.just("uri"), st.just(LISTED)),
        st.builds(
            RecordFilter,
            st.sampled_from(COLLECTIONS),
            st.just("subject_uri"),
            st.sampled_from(SUBJECTS).map(lambda one: frozenset({one})),
        ),
    ),
    max_size=4,
).map(tuple)
purges = st.sets(st.sampled_from(KEYS), max_size=4)
rounds = st.tuples(changes(KEYS), HOSTS, st.booleans(), purges)


@settings(deadline=None, derandomize=True, database=None, max_examples=600)
@given(
    st.sampled_from(list(SELECTIONS)),
    ranges,
    filters,
    st.tuples(starts(KEYS), st.integers(1, len(KEYS))),
    st.lists(rounds, min_size=1, max_size=4),
)
def test_what_is_left_out_of_collections_makes_no_wrong_rows(
    base: str,
    time_range: dict[str, Any],
    filtered: tuple[RecordFilter, ...],
    filled: tuple[list[str], int],
    told: list[tuple[list[Change], tuple[str, int], bool, set[str]]],
) -> None:
    refresher = refresher_of(replace(SELECTIONS[base], **time_range, filters=filtered))
    now = Moment({key: block_of(key, place % CONTENTS) for place, key in enumerate(filled[0][: filled[1]])})
    known, past = refresher.fetch(now), [now]
    for what, host, asks_again, gone in told:
        known, refresher = purged_from(known, refresher, gone)
        now = changed(now, what, KEYS, block_of)
        with suppress(UnprovenError, InvalidRepoError):
            known = refresher.refresh(known, now, answer(host, past, now))
            past.append(now)
            continue
        if asks_again:
            known = refresher.fetch(now)
            past.append(now)


def purged_from(known: Known, refresher: Refresher, gone: set[str]) -> tuple[Known, Refresher]:
    """What a purge leaves: an account that loses rows loses its marks."""
    rows = {key: cid for key, cid in known.rows.items() if key not in gone}
    purged = refresher.purged | {f"at://{DID}/{key}" for key in gone}
    return Known(rows, known.marks if rows == known.rows else ()), replace(refresher, purged=purged)


LATE_ONES = Selection((LIKE,), start_us=MIDDLE_US)
OF_A = Selection((LIKE,), filters=(RecordFilter(LIKE, "subject_uri", frozenset(SUBJECTS[:1])),))


@pytest.mark.parametrize("selection", [LATE_ONES, OF_A])
def test_content_from_a_collection_that_nobody_looked_at(selection: Selection) -> None:
    """Its block is an old one, so an honest host leaves it out: the record is listed and may be wanted."""
    block = encode_dag_cbor({"createdAt": LATE, "subject": {"uri": SUBJECTS[0]}})
    before, now = Moment({f"{POST}/0": block}), Moment({f"{LIKE}/0": block})
    refresher = refresher_of(selection)
    assert refresher.wanted(now)
    with pytest.raises(UnprovenError, match=f"lists {LIKE}/0 .* and leaves it out"):
        refresher.refresh(refresher.fetch(before), now, set(now.blocks) - set(before.blocks))


@pytest.mark.parametrize("selection", [LATE_ONES, OF_A])
def test_a_new_record_that_is_forgotten_is_not_taken_for_one_left_out_before(selection: Selection) -> None:
    blocks = [encode_dag_cbor({"createdAt": LATE, "subject": {"uri": SUBJECTS[0]}, "n": n}) for n in range(2)]
    before = Moment({f"{LIKE}/0": blocks[0]})
    now = Moment({f"{LIKE}/{n}": block for n, block in enumerate(blocks)})
    refresher = refresher_of(selection)
    sent = set(now.blocks) - set(before.blocks)
    assert len(refresher.refresh(refresher.fetch(before), now, sent).rows) == 2
    with pytest.raises(UnprovenError):
        refresher.refresh(refresher.fetch(before), now, sent - {cid_of(blocks[1])})


def test_lists_of_uris_and_purges_judge_without_content() -> None:
    key, other = f"{LIKE}/0", f"{LIKE}/1"
    listed = RecordFilter(LIKE, "uri", frozenset({f"at://{DID}/{other}"}))
    before, now = Moment({other: block_of(other, 0)}), Moment({key: block_of(key, 0), other: block_of(other, 0)})
    nodes = {one.cid for one in now.tree.subtrees}
    for refresher in (
        refresher_of(Selection((LIKE,), filters=(listed,))),
        refresher_of(Selection((LIKE,)), frozenset({f"at://{DID}/{key}"})),
    ):
        assert set(refresher.refresh(refresher.fetch(before), now, nodes).rows) == {other}


def test_no_subtree_is_known_where_records_are_left_out() -> None:
    chosen = [key for key in KEYS if key.startswith(f"{LIKE}/")]
    before = Moment({key: block_of(key, 1) for key in chosen})
    for refresher in (refresher_of(LATE_ONES), refresher_of(Selection((LIKE,)), frozenset({f"at://{DID}/x.y/z"}))):
        known = refresher.fetch(before)
        assert set(known.rows) == set(chosen)
        assert known.marks == ()
        with pytest.raises(UnprovenError):
            refresher.refresh(known, before, ())
    foreign = refresher_of(Selection((LIKE,)), frozenset({"at://did:plc:other/x.y/z"}))
    assert foreign.refresh(foreign.fetch(before), before, ()).rows == foreign.wanted(before)


def test_holes() -> None:
    plain, uri = Selection((LIKE,)), f"at://{DID}/{LIKE}/0"
    assert not has_holes(DID, plain, frozenset())
    assert not has_holes(DID, plain, frozenset({"at://did:plc:other/a.b/c"}))
    assert has_holes(DID, plain, frozenset({uri}))
    assert has_holes(DID, replace(plain, end_us=0), frozenset())
    assert has_holes(DID, replace(plain, start_us=0), frozenset())
    assert has_holes(DID, OF_A, frozenset())
