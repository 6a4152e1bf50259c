"""Repos judged by code that didn't write them: libipld, the atproto SDK, hashlib, cryptography, a plain walker."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import atproto
import libipld
import pytest

from backfill_dagster.localnet.dice import made_up_did
from backfill_dagster.localnet.generate import generate_repo
from backfill_dagster.localnet.mix import record_counts, record_type
from backfill_dagster.localnet.repo_writer import NewRecord, RepoBytes, blocks_of, commit_changes, keys_of, write_repo
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tids import EPOCH_END_US, EPOCH_START_US, clock_text, tid
from backfill_dagster.localnet.tree import Entry, layer_of, write_tree
from backfill_dagster_tests.localnet.plain_reader import (
    depth_of,
    has_good_signature,
    reachable,
    read_repo,
    sections_of,
    walk,
)

DID = made_up_did(3, 0)
K256, P256 = SigningKey("k256", 12345), SigningKey("p256", 67890)


def made(index: int = 0, key: SigningKey = K256, median: int = 300) -> tuple[RepoBytes, dict[str, int]]:
    counts = record_counts(3, index, median=median, cap=5000)
    return generate_repo(3, index, DID, key, counts), counts


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("key", [K256, P256], ids=["k256", "p256"])
def test_a_repo_is_whole_ordered_and_signed(index: int, key: SigningKey) -> None:
    repo, counts = made(index, key)
    commit, records, blocks = read_repo(repo.car())
    assert set(commit) == {"did", "version", "data", "rev", "prev", "sig"}
    assert (commit["did"], commit["version"], commit["prev"], commit["rev"]) == (DID, 3, None, repo.rev)
    assert has_good_signature(commit, key.curve, key.public_bytes())
    assert not has_good_signature(commit, "k256", SigningKey("k256", 999).public_bytes())
    assert set(blocks) == reachable(blocks, commit["data"]) | {repo.root}
    found: Counter[str] = Counter()
    for path, block in records.items():
        record = libipld.decode_dag_cbor(block)
        collection = path.partition("/")[0]
        assert record["$type"] == collection
        found[record_type(collection, is_reply="reply" in record)] += 1
    assert dict(found) == counts


def test_strangers_read_the_same_blocks() -> None:
    car = made(1)[0].car()
    root, sections = sections_of(car)
    header, by_libipld = libipld.decode_car(car)
    assert header["roots"] == [root]
    assert by_libipld == {cid: libipld.decode_dag_cbor(block) for cid, block in sections}
    by_sdk = atproto.CAR.from_bytes(car)
    assert by_sdk.root == libipld.encode_cid(root) or by_sdk.root == root
    assert str(by_sdk.root) == libipld.encode_cid(root)
    decoded = {libipld.encode_cid(cid): record for cid, record in by_libipld.items()}
    assert {str(cid): record for cid, record in by_sdk.blocks.items()} == decoded


def test_blocks_come_newest_rev_first_and_then_by_cid_descending() -> None:
    repo, _ = made(1)
    _, sections = sections_of(repo.car())
    order = [(rev, cid) for rev, (cid, _) in zip(repo.revs_us, sections, strict=True)]
    assert order == sorted(order, reverse=True)
    roots_first = sum(made(i, median=30)[0].body[2:38] == made(i, median=30)[0].root for i in range(20))
    assert roots_first < 15


def test_every_prefix_that_since_leaves_proves_all_records_after_it() -> None:
    repo, _ = made(2)
    full_root, full = sections_of(repo.car())
    all_blocks = dict(full)
    written = {cid: rev for rev, (cid, _) in zip(repo.revs_us, full, strict=True)}
    entries = walk(all_blocks, libipld.decode_dag_cbor(all_blocks[full_root])["data"])
    for cut in (0, 1, len(full) // 10, len(full) // 2, len(full) - 1):
        since_us = repo.revs_us[cut]
        root, partial = sections_of(repo.car(tid(since_us, repo.clock_id)))
        assert root == full_root
        assert {cid for cid, _ in partial} == {cid for cid, rev in written.items() if rev > since_us}
        seen = reachable(dict(partial), libipld.decode_dag_cbor(all_blocks[root])["data"])
        assert {cid for _, cid in entries if written[cid] > since_us} <= seen


def test_since_a_synthetic_moment_and_beyond_the_end() -> None:
    repo, _ = made(2)
    before = tid(EPOCH_START_US, 1023)
    assert repo.car(before) == repo.car()
    assert len(repo.car(tid(EPOCH_END_US * 2, 0))) == 59
    assert sections_of(repo.car(repo.rev)) == (repo.root, [])
    middle = tid((EPOCH_START_US + EPOCH_END_US) // 2, 0)
    assert len(repo.header) < len(repo.car(middle)) < len(repo.car())


def test_revs_follow_the_records_and_end_with_the_commits() -> None:
    repo, _ = made(2)
    _, sections = sections_of(repo.car())
    rkeys = {cid: key.partition("/")[2] for key, cid in keys_of(repo.root, blocks_of(repo)).items()}
    for rev_us, (cid, _) in zip(repo.revs_us, sections, strict=True):
        if len(rkeys.get(cid, "")) == 13:
            assert rkeys[cid] < tid(rev_us, repo.clock_id)
    assert repo.rev == tid(repo.revs_us[0], repo.clock_id)
    assert EPOCH_START_US < repo.revs_us[-1] <= repo.revs_us[0] < EPOCH_END_US


def test_the_same_seed_writes_the_same_bytes() -> None:
    assert made(4)[0].car() == made(4)[0].car()
    assert made(4, P256)[0].car() == made(4, P256)[0].car()
    assert made(4)[0].root != made(3)[0].root
    assert generate_repo(9, 4, DID, K256, {"like": 3}).root != generate_repo(3, 4, DID, K256, {"like": 3}).root


def test_an_empty_repo_has_one_empty_node() -> None:
    repo = generate_repo(3, 0, DID, K256, {})
    commit, records, blocks = read_repo(repo.car())
    assert (records, len(blocks)) == ({}, 2)
    assert libipld.encode_cid(commit["data"]) == "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"


def test_known_trees_have_their_known_roots() -> None:
    value = libipld.decode_multibase("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")[1]

    def root(*keys: str) -> str:
        cid, _ = write_tree([Entry(key.encode(), value, 1) for key in sorted(keys)], empty_rev_us=1)
        text: str = libipld.encode_cid(cid)
        return text

    assert root("com.example.record/3jqfcqzm3fo2j") == "bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu"
    before = ("A0/374913", "B1/986427", "C0/451630", "E0/670489", "F1/085263", "G0/765327")
    assert root(*before) == "bafyreicraprx2xwnico4tuqir3ozsxpz46qkcpox3obf5bagicqwurghpy"
    assert root(*before, "D2/269196") == "bafyreihvay6pazw3dfa47u5d2tn3rd6pa57sr37bo5bqyvjuqc73ib65my"


@pytest.mark.parametrize(
    ("key", "layer"), [("", 0), ("blue", 1), ("2653ae71", 0), ("app.bsky.feed.post/9adeb165882c", 8), ("884976f5", 6)]
)
def test_layers_of_known_keys(key: str, layer: int) -> None:
    assert layer_of(key.encode()) == layer == depth_of(key.encode())


def test_a_record_that_two_keys_share_is_one_block_at_its_first_rev() -> None:
    block = libipld.encode_dag_cbor({"$type": "a.b.c"})
    records = [NewRecord("a.b.c/1", block, 10), NewRecord("a.b.c/2", block, 20), NewRecord("a.b.c/3", block, 15)]
    repo = write_repo(DID, K256, records, created_us=1, clock_id=0)
    _, found, blocks = read_repo(repo.car())
    assert list(found) == ["a.b.c/1", "a.b.c/2", "a.b.c/3"]
    assert {rev_us for cid, (rev_us, _, _) in blocks_of(repo).items() if blocks[cid] == block} == {10}
    assert repo.revs_us[0] == 20
    assert set(blocks) == {cid for cid, _ in sections_of(repo.car())[1]}


def test_changes_make_one_new_commit_and_keep_the_revs_of_the_rest() -> None:
    repo, _ = made(2)
    old = keys_of(repo.root, blocks_of(repo))
    first, second, *_ = old
    new_block = libipld.encode_dag_cbor({"$type": "app.bsky.feed.post", "text": "new"})
    changes = {first: None, second: new_block, "app.bsky.feed.post/3zzzzzzzzzzzz": new_block}
    at_us = repo.revs_us[0] + 1_000_000
    after = commit_changes(repo, DID, P256, changes, rev_us=at_us)
    commit, records, blocks = read_repo(after.car())
    assert commit["rev"] == after.rev == tid(at_us, repo.clock_id) > repo.rev
    assert has_good_signature(commit, "p256", P256.public_bytes())
    assert set(records) == (set(old) - {first}) | {"app.bsky.feed.post/3zzzzzzzzzzzz"}
    assert records[second] == new_block
    delta_root, delta = sections_of(after.car(repo.rev))
    assert delta_root == after.root
    assert {cid for cid, _ in delta} == set(blocks) - set(blocks_of(repo))
    assert 3 <= len(delta) < 40


def test_an_empty_change_is_a_new_commit_over_the_same_tree() -> None:
    repo, _ = made(2)
    after = commit_changes(repo, DID, K256, {}, rev_us=repo.revs_us[0] + 1)
    assert len(sections_of(after.car(repo.rev))[1]) == 1
    assert keys_of(after.root, blocks_of(after)) == keys_of(repo.root, blocks_of(repo))
    with pytest.raises(ValueError, match=r"no\.such\.record/1"):
        commit_changes(repo, DID, K256, {"no.such.record/1": None}, rev_us=repo.revs_us[0] + 1)


def test_long_keys_and_big_records_are_framed_well(tmp_path: Path) -> None:
    keys = [f"com.example.{'x' * 50}/{'k' * n}" for n in (1, 23, 255, 256, 512)]
    big = libipld.encode_dag_cbor({"$type": "x", "text": "y" * 300_000})
    repo = write_repo(DID, K256, [NewRecord(key, big, 5) for key in keys], created_us=1, clock_id=1)
    _, records, _ = read_repo(repo.car())
    assert records == dict.fromkeys(sorted(keys), big)


def test_a_walk_over_a_broken_tree_is_a_value_error() -> None:
    repo, _ = made(2)
    blocks = blocks_of(repo)
    commit = libipld.decode_dag_cbor(blocks[repo.root].block)
    with pytest.raises(ValueError, match="missing"):
        keys_of(repo.root, {repo.root: blocks[repo.root]})
    with pytest.raises(ValueError, match="without 'l'"):
        keys_of(repo.root, {repo.root: commit, commit["data"]: {"e": []}})


def test_tids_and_clock_texts_are_the_known_ones() -> None:
    assert tid(0, 0) == "2222222222222"
    assert tid(2**53 - 1, 1023) == "bzzzzzzzzzzzz"
    assert tid(1, 0) == "2222222222322"
    assert clock_text(EPOCH_START_US + 3_723_004_000) == "2024-01-01T01:02:03.004"
