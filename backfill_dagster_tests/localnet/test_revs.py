"""Which blocks `since` leaves out: each block has the rev of the commit that first had it, until it is gone.

The same writes on the reference PDS are compared in `reference/test_since.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import libipld

from backfill_dagster.localnet.repo_writer import NewRecord, RepoBytes, commit_changes, keys_of, write_repo
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tids import tid
from backfill_dagster.localnet.tree import layer_of
from backfill_dagster_tests.localnet.plain_reader import sections_of

DID, KEY = "did:plc:" + "a" * 24, SigningKey("k256", 12345)


def key(collection: str, layer: int, number: int = 0) -> str:
    """The first keys of a collection whose hash puts them on a layer of the tree."""
    keys = (f"{collection}/{rkey}" for rkey in itertools.count())
    return next(itertools.islice((one for one in keys if layer_of(one.encode()) == layer), number, None))


A, B, C = key("com.example.a", 0), key("com.example.a", 0, 1), key("com.example.b", 0)
HIGH, OVER = key("com.example.aa", 1), key("com.example.c", 1)


def block_of(text: str) -> bytes:
    block: bytes = libipld.encode_dag_cbor({"$type": "com.example.a", "text": text})
    return block


FIRST, SECOND = block_of("first"), block_of("second")


class History:
    """A repo after one commit after the other; commit n is at moment n."""

    def __init__(self) -> None:
        self.repos: list[RepoBytes] = [write_repo(DID, KEY, [NewRecord("z.z.z/z", FIRST, 0)], created_us=0, clock_id=1)]
        self.commit({"z.z.z/z": None})

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        self.repos.append(commit_changes(self.repos[-1], DID, KEY, changes, rev_us=len(self.repos)))

    def records_since(self, commit: int) -> set[bytes]:
        """Records that `since` the rev of a commit sends now; what is no record is left out."""
        sent = {block for _, block in sections_of(self.repos[-1].car(tid(commit, 1)))[1]}
        return sent & {FIRST, SECOND}

    def nodes_since(self, commit: int) -> int:
        sent = sections_of(self.repos[-1].car(tid(commit, 1)))[1]
        return len([block for _, block in sent if "e" in libipld.decode_dag_cbor(block)])

    @property
    def now(self) -> int:
        return len(self.repos) - 1


def test_an_edit_back_to_earlier_content_is_sent_again() -> None:
    history = History()
    history.commit({A: FIRST})
    start = history.now
    history.commit({A: SECOND})
    history.commit({A: FIRST})
    assert history.records_since(start) == {FIRST}
    assert history.records_since(start + 1) == {FIRST}
    assert history.records_since(history.now) == set()
    assert history.nodes_since(start) == 1, "the tree is that of before, and its blocks were gone between"


def test_a_record_deleted_and_added_again_is_sent_again() -> None:
    history = History()
    history.commit({A: FIRST, B: SECOND})
    start = history.now
    history.commit({A: None})
    history.commit({A: FIRST})
    assert history.records_since(start) == {FIRST}


def test_a_second_record_of_equal_content_is_listed_without_a_block() -> None:
    history = History()
    history.commit({A: FIRST})
    start = history.now
    history.commit({B: FIRST})
    assert history.records_since(start) == set()
    assert history.nodes_since(start) == 1
    assert list(keys_of(history.repos[-1].root, dict_of(history.repos[-1]))) == [A, B]


def test_content_that_another_record_still_has_keeps_its_rev() -> None:
    history = History()
    history.commit({A: FIRST, B: FIRST})
    start = history.now
    history.commit({A: None})
    history.commit({A: FIRST})
    assert history.records_since(start - 1) == {FIRST}
    assert history.records_since(start) == set()


def test_a_vanished_collection_sends_what_is_left_around_it() -> None:
    history = History()
    history.commit({A: FIRST, B: FIRST, C: SECOND})
    start = history.now
    history.commit({A: None, B: None})
    assert history.records_since(start) == set()
    assert history.records_since(start - 1) == {SECOND}
    assert history.nodes_since(start) == 1


def test_a_tree_that_is_what_was_its_subtree_sends_the_commit_alone() -> None:
    history = History()
    history.commit({A: FIRST, HIGH: SECOND, C: SECOND})
    start = history.now
    history.commit({HIGH: None, C: None})
    assert list(keys_of(history.repos[-1].root, dict_of(history.repos[-1]))) == [A]
    assert [cid for cid, _ in sections_of(history.repos[-1].car(tid(start, 1)))[1]] == [history.repos[-1].root]


def test_a_gap_between_two_keys_may_have_held_more_than_the_subtree_that_is_left() -> None:
    history = History()
    history.commit({A: FIRST, HIGH: SECOND, C: SECOND, OVER: FIRST})
    start = history.now
    history.commit({HIGH: None, C: None})
    assert list(keys_of(history.repos[-1].root, dict_of(history.repos[-1]))) == [A, OVER]
    assert (history.records_since(start), history.nodes_since(start)) == (set(), 1)


def test_an_empty_repo_sends_its_one_node() -> None:
    history = History()
    history.commit({A: FIRST})
    start = history.now
    history.commit({A: None})
    assert (history.records_since(start), history.nodes_since(start)) == (set(), 1)
    assert keys_of(history.repos[-1].root, dict_of(history.repos[-1])) == {}


def dict_of(repo: RepoBytes) -> dict[bytes, object]:
    return {cid: libipld.decode_dag_cbor(block) for cid, block in sections_of(repo.car())[1]}
