"""Building trees: every subtree of every tree at hand has the CID that its entries say; what can't be has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.atproto.car import scan_car
from backfill_dagster.atproto.cid import RAW_CID_PREFIX, cid_bytes, cid_of, cid_text
from backfill_dagster.atproto.commit import read_commit
from backfill_dagster.atproto.mst import KEY_MAX_BYTES, MAX_LEVEL
from backfill_dagster.atproto.mst_build import shared_prefix_bytes, subtree_cid, tree_cid
from backfill_dagster.localnet.generate import generate_repo
from backfill_dagster.localnet.mix import record_counts
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tree import Entry, write_tree
from backfill_dagster_tests.atproto.build_repo import DID, Blocks, entry, key_on_level, level
from backfill_dagster_tests.atproto.outside_data import interop_json, interop_lines, real_car
from backfill_dagster_tests.atproto.plain_tree import PlainTree, read_tree

REFERENCE = sorted((Path(__file__).parent.parent / "fixtures" / "reference").glob("*.car"))
RECORD = cid_of(b"record")
LEAF = cid_bytes("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")
LOW, HIGH = key_on_level(0).encode(), key_on_level(1).encode()
TALL = [key_on_level(number, "a.b.c").encode() for number in range(6)]

_KEYS = st.one_of(
    st.from_regex(r"[abc]\.[ab]/[a-c0-1]{1,5}", fullmatch=True).map(str.encode),
    st.sampled_from(TALL),
)
_ENTRIES = st.dictionaries(_KEYS, st.binary(max_size=2).map(cid_of), max_size=80).map(lambda tree: sorted(tree.items()))


def _tree_of(data: bytes) -> tuple[PlainTree, bytes]:
    """The tree of a CAR and its root."""
    car = scan_car(data)
    root = read_commit(car.blocks.block(car.root)).data
    return read_tree({cid: car.blocks.block(cid) for cid in car.blocks}, root), root


def _check_subtrees(tree: PlainTree) -> None:
    for subtree in tree.subtrees:
        entries = tree.entries_of(subtree)
        assert subtree_cid(entries, subtree.level) == (subtree.cid if entries else None)


def _check_whole(data: bytes) -> PlainTree:
    tree, root = _tree_of(data)
    assert not tree.absent
    assert tree_cid(tree.entries) == root
    _check_subtrees(tree)
    return tree


@pytest.mark.parametrize("path", [path for path in REFERENCE if path.stem != "since"], ids=lambda path: path.stem)
def test_each_subtree_that_the_reference_pds_wrote(path: Path) -> None:
    _check_whole(path.read_bytes())


def test_the_whole_subtrees_of_a_partial_answer() -> None:
    tree, _ = _tree_of(next(path for path in REFERENCE if path.stem == "since").read_bytes())
    assert tree.absent
    assert tree.subtrees
    _check_subtrees(tree)


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("repostream_little.car", 278),
        ("repostream_tiny.car", 8),
        ("repostream_empty.car", 0),
        ("arroba_snarfed2.car", 5),
        ("indigo_fakermaker.repo.car", 142),
    ],
)
def test_each_subtree_of_real_repos(name: str, records: int) -> None:
    assert len(_check_whole(real_car(name)).entries) == records


@pytest.mark.parametrize("index", range(3))
def test_each_subtree_of_localnet_repos(index: int) -> None:
    counts = record_counts(3, index, median=400, cap=3000)
    _check_whole(generate_repo(3, index, DID, SigningKey("k256", 12345), counts).car())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_trees_of_the_commit_proof_vectors(moment: str) -> None:
    vectors = interop_json("firehose/commit-proof-fixtures.json")
    for vector in vectors:
        keys = set(vector["keys"])
        if moment == "after":
            keys = keys - set(vector["dels"]) | set(vector["adds"])
        entries = [(key.encode(), cid_bytes(vector["leafValue"])) for key in sorted(keys)]
        assert cid_text(tree_cid(entries)) == vector[f"root{moment.title()}Commit"], vector["comment"]
    assert len(vectors) == 6


def test_shared_prefixes() -> None:
    vectors = interop_json("mst/common_prefix.json")
    for vector in vectors:
        assert shared_prefix_bytes(vector["left"].encode(), vector["right"].encode()) == vector["len"], vector
    assert len(vectors) >= 13


def test_the_example_keys() -> None:
    keys = interop_lines("example_keys.txt", "mst")
    blocks = Blocks()
    root = blocks.put_tree(dict.fromkeys(keys, LEAF))
    tree = read_tree(blocks.by_cid, root)
    assert (len(tree.entries), tree.subtrees[0].level) == (156, 5)
    assert tree_cid(tree.entries) == root
    _check_subtrees(tree)


@pytest.mark.parametrize(
    ("rkeys", "root"),
    [
        ("", "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"),
        ("3jqfcqzm3fo2j", "bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu"),
        ("3jqfcqzm3fx2j", "bafyreih7wfei65pxzhauoibu3ls7jgmkju4bspy4t2ha2qdjnzqvoy33ai"),
        (
            "3jqfcqzm3fp2j 3jqfcqzm3fr2j 3jqfcqzm3fs2j 3jqfcqzm3ft2j 3jqfcqzm4fc2j",
            "bafyreicmahysq4n6wfuxo522m6dpiy7z7qzym3dzs756t5n7nfdgccwq7m",
        ),
    ],
)
def test_known_trees_of_the_reference_implementation(rkeys: str, root: str) -> None:
    entries = [(f"com.example.record/{rkey}".encode(), LEAF) for rkey in rkeys.split()]
    assert cid_text(tree_cid(entries)) == root


@settings(deadline=None, max_examples=200)
@given(_ENTRIES)
def test_any_tree_as_two_other_writers_make_it(entries: list[tuple[bytes, bytes]]) -> None:
    blocks = Blocks()
    root = blocks.put_tree({key.decode(): cid for key, cid in entries})
    assert tree_cid(entries) == root
    assert write_tree([Entry(key, cid, 0) for key, cid in entries], empty_rev_us=0)[0] == root
    _check_subtrees(read_tree(blocks.by_cid, root))


@settings(deadline=None)
@given(_ENTRIES.filter(bool), st.data())
def test_other_entries_or_another_level_have_another_cid(
    entries: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    top = max(level(key.decode()) for key, _ in entries)
    cid = subtree_cid(entries, top)
    at = data.draw(st.integers(0, len(entries) - 1))
    without = entries[:at] + entries[at + 1 :]
    edited = [*entries[:at], (entries[at][0], RECORD), *entries[at + 1 :]]
    others = [subtree_cid(without, top), subtree_cid(edited, top), subtree_cid(entries, top + 1)]
    assert cid is not None
    assert cid not in others
    assert subtree_cid(entries, top - 1) is None


def test_levels_without_keys_are_nodes_with_a_link() -> None:
    blocks = Blocks()
    below = blocks.put_node(None, entry(LOW, RECORD))
    for number in range(1, MAX_LEVEL + 1):
        below = blocks.put_node(below)
        assert subtree_cid([(LOW, RECORD)], number) == below
    assert subtree_cid([(LOW, RECORD)], MAX_LEVEL + 1) is None


@pytest.mark.parametrize("number", [-1, 0, 5, MAX_LEVEL, 10**12])
def test_no_subtree_is_empty(number: int) -> None:
    assert subtree_cid([], number) is None


def test_a_key_above_the_root() -> None:
    assert subtree_cid([(HIGH, RECORD)], 0) is None
    assert subtree_cid([(LOW, RECORD)], -1) is None
    assert subtree_cid([(HIGH, RECORD)], 1) == tree_cid([(HIGH, RECORD)])


@pytest.mark.parametrize(
    "entries",
    [
        [(LOW, RECORD), (LOW, RECORD)],
        [(b"b.b/b", RECORD), (b"a.a/a", RECORD)],
        [(b"", RECORD)],
        [(b"noslash", RECORD)],
        [(b"a.b/c/d", RECORD)],
        [(b"a.b/c d", RECORD)],
        [(b"a.b/c\n", RECORD)],
        [(b"a.b/\xff", RECORD)],
        [(b"a.b/".ljust(KEY_MAX_BYTES + 1, b"x"), RECORD)],
        [(LOW, b"")],
        [(LOW, RECORD[:-1])],
        [(LOW, RECORD + b"\x00")],
        [(LOW, RAW_CID_PREFIX + RECORD[4:])],
    ],
)
def test_what_no_tree_can_hold(entries: list[tuple[bytes, bytes]]) -> None:
    assert [number for number in (0, 5, MAX_LEVEL) if subtree_cid(entries, number) is not None] == []
    with pytest.raises(ValueError, match="not ascending"):
        tree_cid(entries)


def test_the_longest_key() -> None:
    key = b"a.b/".ljust(KEY_MAX_BYTES, b"x")
    blocks = Blocks()
    assert tree_cid([(key, RECORD)]) == blocks.put_tree({key.decode(): RECORD})
