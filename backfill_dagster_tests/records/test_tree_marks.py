"""Marks: the nodes that hold wanted records and others, with their rows; and where outcomes carry them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.atproto.cid import cid_bytes
from backfill_dagster.atproto.dag_cbor import encode_dag_cbor
from backfill_dagster.ledger import item_attributes, item_from_attributes
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome
from backfill_dagster.records import tree_marks as tree_marks_module
from backfill_dagster.records.entry import LogEntry, outcome_bytes
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.snapshot import fold_from_snapshot, snapshot_bytes
from backfill_dagster.records.tree_marks import MARKS_MAX, TreeMark, by_name, mark_name, tree_marks
from backfill_dagster_tests.atproto.build_repo import DID, key_on_level
from backfill_dagster_tests.atproto.plain_tree import Subtree
from backfill_dagster_tests.records.changing_repo import SELECTIONS, Moment, Refresher, keys_of_all_levels
from backfill_dagster_tests.records.hosts import starts

KEYS = keys_of_all_levels()
LIKE, POST = "app.bsky.feed.like", "app.bsky.feed.post"
EMPTY_TREE = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"
"""Its sha256 is 9dfefe61dd76ea3dcae50238..."""

examples = settings(deadline=None, derandomize=True, database=None, max_examples=100)
selections = st.sampled_from(list(SELECTIONS)).map(SELECTIONS.__getitem__)


def moment_of(*keys: str, n: int = 0) -> Moment:
    return Moment({key: encode_dag_cbor({"key": key, "n": n}) for key in keys})


def expected(moment: Moment, selection: Selection) -> dict[str, int]:
    """Name -> rows of the root and of every node that could hold wanted records and others."""
    tree = moment.tree
    rows = Refresher(selection).wanted(moment)
    marked: list[Subtree] = [
        one
        for one in tree.subtrees
        if one.cid == moment.data or selection.cuts(tree.key_at(one.start - 1) or "", tree.key_at(one.stop))
    ]
    return {mark_name(one.cid): sum(key.decode() in rows for key, _ in tree.entries_of(one)) for one in marked}


def pairs(mark: TreeMark) -> Iterator[tuple[TreeMark, TreeMark]]:
    """Each mark with each of those right below it."""
    for below in mark[2:]:
        yield mark, below
        yield from pairs(below)


@examples
@given(selections, starts(KEYS))
def test_marks_of_a_whole_repo(selection: Selection, filled: list[str]) -> None:
    moment = moment_of(*filled)
    marks = tree_marks(moment.opened(), selection)
    assert {name: mark[1] for name, mark in by_name(marks).items()} == expected(moment, selection)
    assert marks[0] == mark_name(moment.data)
    tree = {mark_name(one.cid): one for one in moment.tree.subtrees}
    for above, below in pairs(marks):
        outer, inner = tree[above[0]], tree[below[0]]
        assert outer.start <= inner.start <= inner.stop <= outer.stop
        assert outer.level == inner.level + 1
    assert json.loads(json.dumps(marks)) == marks


@examples
@given(selections, starts(KEYS), st.lists(st.sampled_from(KEYS), max_size=4), st.integers(0, 1))
def test_marks_of_a_repo_that_grew_lack_nothing(
    selection: Selection, filled: list[str], put: list[str], number: int
) -> None:
    before = moment_of(*filled)
    after = Moment({**before.records, **moment_of(*put, n=number).records})
    refresher = Refresher(selection)
    found = refresher.refresh(refresher.fetch(before), after, set(after.blocks) - set(before.blocks)).marks
    named = {name: mark[1] for name, mark in by_name(found).items()}
    assert named.items() >= expected(after, selection).items()


def test_an_absent_subtree_keeps_the_marks_below_it() -> None:
    likes, posts = ([key_on_level(number, name) for number in (0, 1, 2)] for name in (LIKE, POST))
    before, after = moment_of(*likes, *posts), moment_of(*likes, *posts, key_on_level(4, "z.z.z"))
    refresher = Refresher(Selection((LIKE,)))
    known = refresher.fetch(before)
    assert len(by_name(known.marks)) > 2
    sent = set(after.blocks) - set(before.blocks)
    marks = refresher.refresh(known, after, sent).marks
    assert by_name(marks).items() >= by_name(known.marks).items()
    alone = by_name(tree_marks(after.opened(sent), refresher.selection, [len(likes)]))
    assert len(alone) < len(by_name(marks))
    assert alone[mark_name(before.data)][1:] == [len(likes)]


def test_a_name_is_the_beginning_of_the_hash() -> None:
    assert mark_name(cid_bytes(EMPTY_TREE)) == "nf7-Yd126j3K5QI4"
    assert moment_of().data == cid_bytes(EMPTY_TREE)


def test_no_marks() -> None:
    assert by_name(()) == by_name([]) == {}


def test_a_selection_of_too_many_collections_keeps_none() -> None:
    names = [f"a.b.c{number:03}" for number in range(500)]
    moment = moment_of(*(f"{name}/{n}" for name in names for n in range(3)))
    assert tree_marks(moment.opened(), Selection(tuple(names[::2]))) == ()
    assert 1 < len(by_name(tree_marks(moment.opened(), Selection(tuple(names[:20:2]))))) < MARKS_MAX
    assert len(by_name(tree_marks(moment.opened(), Selection(("a.b.*",))))) < 20


def test_marks_that_were_kept_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"{name}/{number:03}" for name in (LIKE, POST, "z.z.z") for number in range(60)]
    refresher = Refresher(Selection((POST,)))
    before = moment_of(*keys)
    after = moment_of(*keys, "zz.z.z/0")
    sent = set(after.blocks) - set(before.blocks)
    known = refresher.fetch(before)
    count = len(by_name(refresher.refresh(known, after, sent).marks))
    for most, there in ((count, count), (count - 1, 0), (1, 0)):
        monkeypatch.setattr(tree_marks_module, "MARKS_MAX", most)
        assert len(by_name(refresher.refresh(known, after, sent).marks)) == there


def test_the_log_keeps_the_tree_and_the_ledger_does_not() -> None:
    marks = tree_marks(moment_of(*KEYS).opened(), SELECTIONS["every other"])
    result = RepoOutcome(did=DID, outcome=Outcome.COMPLETE, rev="3k2a", tree=marks, records_by_type={"like": 2})
    assert len(marks) > 3
    entry = LogEntry(seq=1, epoch=1, nonce="n", run_id="r", dids={DID: result}).sealed()
    assert LogEntry.from_bytes(entry.to_bytes()).dids == {DID: result}
    fold = Fold().then([entry])
    assert fold_from_snapshot(snapshot_bytes(fold)) == fold
    assert fold_from_snapshot(snapshot_bytes(fold)).dids[DID][0].tree == marks
    assert result.for_ledger == replace(result, tree=())
    item = LedgerItem(backfill="b", shard="s~0000", seq=1, result=result)
    assert "tree" not in item_attributes(item)
    assert item_from_attributes(item_attributes(item)) == replace(item, result=result.for_ledger)


def test_an_outcome_without_marks_says_nothing_of_them() -> None:
    result = RepoOutcome(did=DID, outcome=Outcome.COMPLETE)
    assert "tree" not in result.to_json()
    assert RepoOutcome.from_json(DID, json.loads(json.dumps(result.to_json()))) == result == result.for_ledger


def test_marks_weigh_about_one_kibibyte() -> None:
    keys = [f"{name}/{number:04}" for name in (LIKE, POST, "app.bsky.graph.follow", "z.z.z") for number in range(500)]
    marks = tree_marks(moment_of(*keys).opened(), Selection((POST, "app.bsky.graph.follow")))
    plain = RepoOutcome(did=DID, outcome=Outcome.COMPLETE)
    weight = outcome_bytes(replace(plain, tree=marks)) - outcome_bytes(plain)
    assert 10 <= len(by_name(marks)) <= 40
    assert 200 < weight < 1200
