"""Partial repos: what is listed and the gaps between add up to exactly the whole, and each gap can be proven."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.atproto.car import scan_car
from backfill_dagster.atproto.cid import cid_of
from backfill_dagster.atproto.commit import read_commit
from backfill_dagster.atproto.mst import Gap, iter_mst, walk_mst
from backfill_dagster.atproto.mst_build import find_subtree, subtree_cid, tree_cid
from backfill_dagster.atproto.repo import Repo, RepoEntry, open_repo
from backfill_dagster.localnet.repo_writer import NewRecord, RepoBytes, blocks_of, commit_changes, write_repo
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tids import EPOCH_START_US as START_US
from backfill_dagster_tests.atproto.build_repo import DID, Blocks, build_repo, car_of, entry, key_on_level, level
from backfill_dagster_tests.atproto.outside_data import real_car
from backfill_dagster_tests.atproto.plain_tree import PlainTree, read_tree

REFERENCE = Path(__file__).parent.parent / "fixtures" / "reference"
RECORD = cid_of(b"record")
FIRST = b"\xa1\x61n\x00"
KEY = SigningKey("k256", 12345)
LOW, HIGH = key_on_level(0), key_on_level(1)
AFTER = key_on_level(0, start=int(HIGH[-6:]) + 1)
TALL = [key_on_level(number, "a.b.c") for number in range(6)]

_KEYS = st.one_of(st.from_regex(r"[abc]\.[ab]/[a-c0-1]{1,5}", fullmatch=True), st.sampled_from(TALL))
_RECORDS = st.dictionaries(_KEYS, st.fixed_dictionaries({"n": st.integers(0, 9)}), max_size=60)


def _gaps(blocks: Blocks, root: bytes, *absent: bytes) -> list[Gap]:
    kept = [(cid, block) for cid, block in blocks.by_cid.items() if cid not in absent]
    car = scan_car(car_of(root, kept))
    gaps: list[Gap] = []
    assert list(iter_mst(car, root, partial=True, gaps=gaps)) == walk_mst(car, root, partial=True)
    return gaps


def _open(data: bytes, did: str = DID) -> Repo:
    return open_repo(data, did=did, signing_key=None, verify="structure", partial=True)


def _key(listed: RepoEntry) -> str:
    return f"{listed[0]}/{listed[1]}"


def _is_within(key: str, gap: Gap) -> bool:
    return gap.after < key and (gap.before is None or key < gap.before)


def _expected_gaps(whole: PlainTree, absent: set[bytes]) -> list[Gap]:
    """The highest absent subtrees, from the whole tree."""
    gaps: list[Gap] = []
    end = 0
    for subtree in whole.subtrees:  # outer ones before those inside them
        if subtree.cid in absent and subtree.start >= end:
            end = subtree.stop
            after, before = whole.key_at(subtree.start - 1), whole.key_at(subtree.stop)
            gaps.append(Gap(after or "", before, subtree.cid, subtree.level))
    return gaps


def _check_adds_up(repo: Repo, whole: PlainTree) -> None:
    """Each key is either listed, with its CID, or within exactly one gap, and what is within a gap proves it."""
    lists = [[(_key(listed), listed[2]) for listed in some] for some in (repo.entries, repo.absent)]
    assert lists == [sorted(some) for some in lists]
    listed = dict(chain(*lists))
    assert len(listed) == sum(map(len, lists))
    for key, cid in whole.entries:
        covers = [gap for gap in repo.gaps if _is_within(key.decode(), gap)]
        assert len(covers) == (0 if key.decode() in listed else 1)
        assert listed.pop(key.decode(), cid) == cid
    assert listed == {}
    for gap in repo.gaps:
        within = [(key, cid) for key, cid in whole.entries if _is_within(key.decode(), gap)]
        assert gap.cid == (tree_cid(within) if gap.level < 0 else subtree_cid(within, gap.level))


def test_where_gaps_are() -> None:
    blocks = Blocks()
    left = blocks.put_node(None, entry(LOW.encode(), RECORD))
    right = blocks.put_node(None, entry(AFTER.encode(), RECORD))
    root = blocks.put_node(left, entry(HIGH.encode(), RECORD, tree=right))
    before, behind = Gap("", HIGH, left, 0), Gap(HIGH, None, right, 0)
    assert _gaps(blocks, root) == []
    assert _gaps(blocks, root, left) == [before]
    assert _gaps(blocks, root, right) == [behind]
    assert _gaps(blocks, root, left, right) == [before, behind]
    assert _gaps(blocks, root, root) == [Gap("", None, root, -1)]


def test_a_gap_whose_next_key_is_levels_above() -> None:
    top = key_on_level(3)
    middle = max(key for number in range(40) if (key := key_on_level(1, start=number * 10)) < top)
    blocks = Blocks()
    absent = blocks.put_node(None, entry(f"{middle}~{_low_end(middle)}".encode(), RECORD))
    node = blocks.put_node(blocks.put_node(None, entry(middle.encode(), RECORD, tree=absent)))
    root = blocks.put_node(node, entry(top.encode(), RECORD))
    assert _gaps(blocks, root, absent) == [Gap(middle, top, absent, 0)]
    assert _gaps(blocks, root, node) == [Gap("", top, node, 2)]


def _low_end(key: str) -> int:
    """A number that takes a key to the lowest level when it is put behind it."""
    return next(number for number in range(100) if level(f"{key}~{number}") == 0)


@pytest.mark.parametrize("records", [{}, {LOW: {"n": 1}}, {key: {} for key in TALL}])
def test_a_whole_repo_read_as_a_partial_one(records: dict[str, Any]) -> None:
    built = build_repo(records)
    repo = _open(built.car)
    assert (repo.is_whole, repo.gaps, repo.absent, len(repo.entries)) == (True, [], [], len(records))
    assert open_repo(built.car, did=DID, signing_key=built.signing_key).is_whole


def test_a_commit_alone_over_a_tree_that_stays() -> None:
    built = build_repo({key: {} for key in TALL})
    repo = _open(car_of(built.root, [(built.root, built.blocks[built.root])]))
    assert (repo.is_whole, repo.entries, repo.absent) == (False, [], [])
    assert repo.gaps == [Gap("", None, built.data, -1)]
    _check_adds_up(repo, read_tree(built.blocks, built.data))


def test_records_that_are_listed_only() -> None:
    built = build_repo({key: {"key": key} for key in TALL})
    gone = TALL[2:4]
    repo = _open(built.car_without(*(cid_of(built.records[key]) for key in gone)))
    assert (repo.is_whole, repo.gaps) == (False, [])
    assert repo.absent == sorted(("a.b.c", key.partition("/")[2], cid_of(built.records[key])) for key in gone)
    _check_adds_up(repo, read_tree(built.blocks, built.data))


@settings(deadline=None, max_examples=200)
@given(_RECORDS, st.data())
def test_whatever_is_left_out_the_rest_and_its_gaps_are_the_whole(
    records: dict[str, dict[str, int]], data: st.DataObject
) -> None:
    built = build_repo(records)
    whole = read_tree(built.blocks, built.data)
    nodes = [subtree.cid for subtree in whole.subtrees if subtree.cid != built.data]
    others = sorted(set(built.blocks) - {built.root, built.data})
    absent = data.draw(st.sets(st.sampled_from(nodes))) if nodes else set()
    absent |= data.draw(st.sets(st.sampled_from(others), max_size=5)) if others else set()
    repo = _open(built.car_without(*absent))
    assert repo.gaps == _expected_gaps(whole, absent)
    assert repo.is_whole == (not absent)
    _check_adds_up(repo, whole)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_what_an_answer_to_since_leaves_out_is_found_among_the_entries_before(data: st.DataObject) -> None:
    keys = [*(f"a.b.c/{number:02d}" for number in range(40)), *TALL]
    present = sorted(data.draw(st.sets(st.sampled_from(keys), max_size=len(keys))))
    old = write_repo(DID, KEY, [NewRecord(key, FIRST, START_US) for key in present], created_us=START_US, clock_id=1)
    new, paths = old, set(present)
    for number in range(1, data.draw(st.integers(1, 3)) + 1):
        gone = data.draw(st.sets(st.sampled_from(sorted(paths)), max_size=4)) if paths else set()
        put = data.draw(st.sets(st.sampled_from(keys), max_size=2)) - gone
        paths = paths - gone | put
        changes = dict.fromkeys(gone, None) | dict.fromkeys(put, b"\xa1\x61n" + bytes([number]))
        new = commit_changes(new, DID, KEY, changes, rev_us=START_US + number)
    repo, before, after = _open(new.car(old.rev)), _plain(old), _plain(new)
    _check_adds_up(repo, after)
    merged = {_key(listed).encode(): listed[2] for listed in repo.entries + repo.absent}
    assert {_key(listed).encode(): listed[2] for listed in repo.absent}.items() <= dict(before.entries).items()
    for gap in repo.gaps:
        former = [(key, cid) for key, cid in before.entries if _is_within(key.decode(), gap)]
        found = find_subtree(former, gap.cid, gap.level)
        assert found is not None
        merged.update(former[slice(*found)])
    assert sorted(merged.items()) == after.entries


def test_a_key_deleted_beside_a_gap_leaves_no_trace_but_the_cid() -> None:
    old = dict.fromkeys((HIGH, AFTER), RECORD)
    blocks = Blocks()
    whole = read_tree(blocks.by_cid, blocks.put_tree(old)).entries
    root = blocks.put_tree({AFTER: RECORD})
    assert _gaps(blocks, root, root) == [Gap("", None, root, -1)]
    assert find_subtree(whole, root, -1) == find_subtree(whole, root, 0) == (1, 2)
    assert find_subtree(whole, root, 1) is None
    assert find_subtree(whole, RECORD, -1) is None
    assert find_subtree(whole, tree_cid([]), -1) == find_subtree([], tree_cid([]), -1) == (0, 0)
    assert find_subtree(whole, tree_cid([]), 0) is None


def _plain(repo: RepoBytes) -> PlainTree:
    blocks = {cid: block.block for cid, block in blocks_of(repo).items()}
    return read_tree(blocks, read_commit(blocks[repo.root]).data)


@pytest.mark.parametrize("name", ["empty", "ten", "edited", "collections", "three_hundred", "p256", "since"])
def test_repos_of_the_reference_pds(name: str) -> None:
    told = json.loads((REFERENCE / "reference.json").read_text())[name]
    repo = _open((REFERENCE / f"{name}.car").read_bytes(), told["did"])
    assert repo.is_whole is (name != "since")
    assert (len(repo.entries) == told["records"]) is (name != "since")
    assert bool(repo.gaps) is (name == "since")
    keys = [_key(listed) for listed in repo.entries + repo.absent]
    for gap in repo.gaps:
        assert [key for key in keys if _is_within(key, gap)] == []
        assert gap.level >= 0
        assert (gap.after in keys, gap.before in keys) == (gap.after != "", gap.before is not None)


def test_a_real_slice() -> None:
    repo = _open(real_car("indigo_repo_slice.car"), "did:plc:6evlgoug7wwijzxhzt2riyic")
    assert (repo.is_whole, len(repo.entries), len(repo.absent)) == (False, 1, 4)
    assert [(gap.after, gap.before, gap.level) for gap in repo.gaps] == [("", "app.bsky.feed.post/3jquh3dxgi52o", 1)]
