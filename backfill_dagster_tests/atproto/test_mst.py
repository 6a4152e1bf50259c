"""The MST: right trees are read in order, each broken rule is refused."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_dagster.atproto import car as car_module
from backfill_dagster.atproto.car import scan_car
from backfill_dagster.atproto.cid import RAW_CID_PREFIX, cid_of
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor
from backfill_dagster.atproto.mst import KEY_MAX_BYTES, key_depth, walk_mst
from backfill_dagster.errors import InvalidRepoError
from backfill_dagster_tests.atproto.build_repo import Blocks, car_of, entry, key_on_level, level

RECORD = cid_of(b"record")
# Four neighbours on the lowest level, and one key above them, in ascending order.
LOW = [key_on_level(0)]
for _ in range(3):
    LOW.append(key_on_level(0, start=int(LOW[-1][-6:]) + 1))
HIGH = key_on_level(1, start=int(LOW[3][-6:]) + 1)
AFTER = key_on_level(0, start=int(HIGH[-6:]) + 1)


def _walk(blocks: Blocks, root: bytes, *, partial: bool = False, verify_cids: bool = True) -> list[tuple[str, bytes]]:
    return walk_mst(scan_car(car_of(root, blocks.by_cid.items()), verify_cids), root, partial)


def _refused(blocks: Blocks, root: bytes, problem: str) -> None:
    for partial in (False, True):
        with pytest.raises(InvalidRepoError, match=problem) as caught:
            _walk(blocks, root, partial=partial)
        assert caught.value.error_code in ("InvalidMst", "TooMuchExpansion")


def _node_refused(node: Any, problem: str) -> None:
    blocks = Blocks()
    _refused(blocks, blocks.put(node), problem)


def _entries(*keys: str) -> list[dict[str, Any]]:
    """Entries of one node, with the prefixes they should have."""
    entries: list[dict[str, Any]] = []
    previous = ""
    for key in keys:
        shared = 0
        while shared < len(previous) and previous[shared] == key[shared]:
            shared += 1
        entries.append(entry(key[shared:].encode(), RECORD, prefix=shared))
        previous = key
    return entries


def _low(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries of the lowest level, each changed in some fields; ... takes a field away."""
    changed = [{**fields, **change} for fields, change in zip(_entries(*LOW), changes, strict=False)]
    return [{name: value for name, value in fields.items() if value is not ...} for fields in changed]


@pytest.mark.parametrize("count", [0, 1, 2, 50, 700])
def test_a_tree_reads_back_in_order(count: int) -> None:
    records = {f"com.example.c{number % 3}/{number}": cid_of(b"%d" % number) for number in range(count)}
    blocks = Blocks()
    root = blocks.put_tree(records)
    assert _walk(blocks, root) == sorted(records.items())


def test_a_tree_with_empty_nodes_between() -> None:
    top = key_on_level(4)
    below = key_on_level(0, start=int(top[-6:]) + 1)
    blocks = Blocks()
    root = blocks.put_tree({LOW[0]: RECORD, top: RECORD, below: RECORD})
    assert len(blocks.by_cid) == 9
    assert [key for key, _ in _walk(blocks, root)] == sorted([LOW[0], top, below])


@pytest.mark.parametrize(
    ("key", "depth"),
    [("", 0), ("asdf", 0), ("blue", 1), ("88bfafc7", 2), ("2a92d355", 4), ("app.bsky.feed.post/9adeb165882c", 8)],
)
def test_levels(key: str, depth: int) -> None:
    assert key_depth(key.encode()) == level(key) == depth


def test_absent_subtrees() -> None:
    blocks = Blocks()
    left = blocks.put_node(None, *_low({}, {}))
    right = blocks.put_node(None, entry(AFTER.encode(), RECORD))
    root = blocks.put_node(left, entry(HIGH.encode(), RECORD, tree=right))
    whole = [(key, RECORD) for key in [*LOW[:2], HIGH, AFTER]]
    assert _walk(blocks, root) == whole
    for absent, rest in [({left}, whole[2:]), ({right}, whole[:3]), ({left, right}, whole[2:3]), ({root}, [])]:
        kept = [(cid, block) for cid, block in blocks.by_cid.items() if cid not in absent]
        car = scan_car(car_of(root, kept))
        assert walk_mst(car, root, partial=True) == rest
        with pytest.raises(InvalidRepoError, match="lacks MST node") as caught:
            walk_mst(car, root)
        assert caught.value.error_code == "MissingBlock"


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"e": []},
        {"l": None},
        {"e": [], "l": None, "more": 1},
        {"e": None, "l": None},
        {"e": {}, "l": None},
        {"e": "x", "l": None},
        {"e": [], "x": None},
        [],
        None,
        "text",
    ],
)
def test_nodes_of_other_fields(node: Any) -> None:
    _node_refused(node, r"not an object of the fields e \(a list\) and l")


@pytest.mark.parametrize("left", ["text", 5, {}, False])
def test_a_left_subtree_that_is_no_link(left: Any) -> None:
    _node_refused({"l": left, "e": []}, "field l is not a link")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"p": ...}, "not an object of the fields"),
        ({"k": ...}, "not an object of the fields"),
        ({"t": ...}, "not an object of the fields"),
        ({"v": ...}, "not an object of the fields"),
        ({"x": 1}, "not an object of the fields"),
        ({"t": ..., "u": None}, "canonical form"),
        ({"p": ..., "o": 0}, "canonical form"),
        ({"p": True}, "field of a wrong type"),
        ({"p": False}, "field of a wrong type"),
        ({"p": 0.0}, "field of a wrong type"),
        ({"p": None}, "field of a wrong type"),
        ({"p": "0"}, "field of a wrong type"),
        ({"k": LOW[0]}, "field of a wrong type"),
        ({"k": None}, "field of a wrong type"),
        ({"v": None}, "field of a wrong type"),
        ({"v": "text"}, "field of a wrong type"),
        ({"v": {}}, "field of a wrong type"),
        ({"t": "text"}, "field t is not a link"),
        ({"t": 0}, "field t is not a link"),
        ({"t": False}, "field t is not a link"),
        ({"p": -1}, "prefix length of -1 is out of range"),
        ({"p": 1}, "prefix length of 1 is out of range"),
        ({"p": 2**63}, "out of range"),
        ({"v": RECORD}, "canonical form"),
        ({"v": b""}, "canonical form"),
        ({"v": Link(RAW_CID_PREFIX + RECORD[4:])}, "something else than DAG-CBOR blocks"),
        ({"k": Link(RECORD)}, "not a key"),
        ({"t": RECORD}, "canonical form"),
        ({"t": Link(RAW_CID_PREFIX + RECORD[4:])}, "something else than DAG-CBOR blocks"),
    ],
)
def test_an_entry_of_wrong_fields(change: dict[str, Any], problem: str) -> None:
    _node_refused({"l": None, "e": _low(change)}, problem)


@pytest.mark.parametrize("not_an_entry", [None, [], "text", 5, b"bytes"])
def test_an_entry_that_is_no_object(not_an_entry: Any) -> None:
    _node_refused({"l": None, "e": [not_an_entry]}, "not an object of the fields")


def test_a_left_link_of_another_kind() -> None:
    for left in (RECORD, Link(RAW_CID_PREFIX + RECORD[4:])):
        _node_refused({"l": left, "e": [entry(HIGH.encode(), RECORD)]}, "canonical form")


def test_a_prefix_out_of_the_previous_key() -> None:
    for prefix in (-1, len(LOW[0]) + 1):
        _node_refused({"l": None, "e": _low({}, {"p": prefix})}, f"prefix length of {prefix} is out of range")


@pytest.mark.parametrize("shorter", [1, 5])
def test_a_prefix_that_is_not_maximal(shorter: int) -> None:
    first, second = _low({}, {})
    prefix = second["p"] - shorter
    second = entry(LOW[1].encode()[prefix:], RECORD, prefix=prefix)
    _node_refused({"l": None, "e": [first, second]}, "its prefix could be longer")


def test_a_key_twice_in_a_node() -> None:
    first = _low({})[0]
    again = entry(b"", RECORD, prefix=len(LOW[0]))
    _node_refused({"l": None, "e": [first, again]}, "is not above it")
    _node_refused({"l": None, "e": [first, first]}, "its prefix could be longer")


def test_keys_that_descend_in_a_node() -> None:
    high, low = entry(LOW[1].encode(), RECORD), entry(b"a", RECORD)
    _node_refused({"l": None, "e": [high, low]}, "its prefix could be longer")
    prefix = len(LOW[1]) - 1
    _node_refused({"l": None, "e": [high, entry(b"!", RECORD, prefix=prefix)]}, "is not above it")
    _node_refused({"l": None, "e": [high, entry(b"", RECORD, prefix=prefix)]}, "is not above it")


def test_keys_that_descend_between_nodes() -> None:
    blocks = Blocks()
    late = blocks.put_node(None, entry(AFTER.encode(), RECORD))
    early = blocks.put_node(None, *_low({}))
    _refused(blocks, blocks.put_node(late, entry(HIGH.encode(), RECORD)), "keys are not ascending")
    _refused(blocks, blocks.put_node(None, entry(HIGH.encode(), RECORD, tree=early)), "keys are not ascending")


def test_a_subtree_that_is_shared() -> None:
    blocks = Blocks()
    shared = blocks.put_node(None, *_low({}))
    _refused(blocks, blocks.put_node(shared, entry(HIGH.encode(), RECORD, tree=shared)), "referenced twice")


def test_an_absent_subtree_that_is_shared() -> None:
    blocks = Blocks()
    root = blocks.put_node(RECORD, entry(HIGH.encode(), RECORD, tree=RECORD))
    with pytest.raises(InvalidRepoError, match="referenced twice"):
        _walk(blocks, root, partial=True)


def test_a_cycle() -> None:
    # only possible where nobody recomputes CIDs
    cid = cid_of(b"anything")
    blocks = Blocks({cid: encode_dag_cbor({"l": Link(cid), "e": [entry(HIGH.encode(), RECORD)]})})
    with pytest.raises(InvalidRepoError, match="referenced twice"):
        _walk(blocks, cid, verify_cids=False)


@pytest.mark.parametrize(
    "key",
    [
        "noslash",
        "/a",
        "a.b.c/",
        "a.b.c/d/e",
        "a.b.c/d e",
        "a.b.c/é",
        "a.b.c/d\x00",
        "a.b.c/d\n",
        "a.b.c/%20",
        "/",
        "a.b.c//d",
    ],
)
def test_keys_of_wrong_syntax(key: str) -> None:
    _node_refused({"l": None, "e": [entry(key.encode(), RECORD)]}, "is not a key <collection>/<rkey>")


def test_a_key_that_is_no_utf8() -> None:
    _node_refused({"l": None, "e": [entry(b"a.b.c/\xff", RECORD)]}, "is not a key")


def test_keys_as_long_as_they_may_be() -> None:
    longest = next(key for number in range(1000) if level(key := f"a.b.c/{number:03d}".ljust(KEY_MAX_BYTES, "x")) == 0)
    blocks = Blocks()
    assert _walk(blocks, blocks.put_node(None, entry(longest.encode(), RECORD))) == [(longest, RECORD)]
    _node_refused({"l": None, "e": [entry(longest.encode() + b"x", RECORD)]}, "is not a key")


def test_keys_that_only_look_like_paths_are_left_to_the_reader_of_records() -> None:
    key = next(key for number in range(100) if level(key := f"not_an_nsid{number}/..") == 0)
    blocks = Blocks()
    assert _walk(blocks, blocks.put_node(None, entry(key.encode(), RECORD))) == [(key, RECORD)]


def test_a_key_below_its_level() -> None:
    blocks = Blocks()
    _refused(blocks, blocks.put_node(None, *_entries(LOW[0], HIGH)), f"{HIGH} doesn't belong on its level, 0")
    child = blocks.put_node(None, *_entries(HIGH))
    top = key_on_level(1, start=int(HIGH[-6:]) + 1)
    _refused(blocks, blocks.put_node(child, *_entries(top)), f"{HIGH} doesn't belong on its level, 0")


def test_a_key_above_its_level() -> None:
    blocks = Blocks()
    _refused(blocks, blocks.put_node(None, *_entries(HIGH, AFTER)), f"{AFTER} doesn't belong on its level, 1")


def test_a_key_on_a_skipped_level() -> None:
    top = key_on_level(2)
    low = key_on_level(0, start=int(top[-6:]) + 1)
    blocks = Blocks()
    skipping = blocks.put_node(None, entry(low.encode(), RECORD))
    _refused(blocks, blocks.put_node(None, entry(top.encode(), RECORD, tree=skipping)), "its level, 1")


def test_a_subtree_below_the_lowest_level() -> None:
    blocks = Blocks()
    child = blocks.put_node(None, entry(AFTER.encode(), RECORD))
    _refused(
        blocks, blocks.put_node(None, entry(LOW[0].encode(), RECORD, tree=child)), "lowest level and has a subtree"
    )
    first = blocks.put_node(None, entry(LOW[0].encode(), RECORD))
    _refused(blocks, blocks.put_node(first, entry(LOW[1].encode(), RECORD)), "lowest level and has a subtree")


def test_an_empty_subtree() -> None:
    blocks = Blocks()
    empty = blocks.put_node(None)
    _refused(blocks, blocks.put_node(empty, entry(HIGH.encode(), RECORD)), "empty and could be left out")
    _refused(blocks, blocks.put_node(None, entry(HIGH.encode(), RECORD, tree=empty)), "empty and could be left out")


def test_an_empty_root_over_a_subtree() -> None:
    blocks = Blocks()
    _refused(blocks, blocks.put_node(blocks.put_node(None, *_low({}))), "empty and could be left out")


def test_a_chain_of_empty_nodes_that_goes_below_the_lowest_level() -> None:
    blocks = Blocks()
    bottom = blocks.put_node(None, *_low({}))
    chain = blocks.put_node(blocks.put_node(bottom))
    _refused(blocks, blocks.put_node(chain, entry(HIGH.encode(), RECORD)), "lowest level and has a subtree")


def test_long_forms_of_lengths_and_integers() -> None:
    good = encode_dag_cbor({"l": None, "e": _low({})})
    for old, new in [
        (b"\x61p\x00", b"\x61p\x18\x00"),
        (b"\x61p\x00", b"\x61p\x1b" + bytes(8)),
        (b"\x61e\x81", b"\x61e\x98\x01"),
        (b"\x61l\xf6", b"\x78\x01l\xf6"),
        (b"\xa2\x61e", b"\xb8\x02\x61e"),
        (b"\xd8\x2a\x58\x25", b"\xd8\x2a\x59\x00\x25"),
    ]:
        assert good.count(old) == 1
        blocks = Blocks()
        _refused(blocks, blocks.put_raw(good.replace(old, new)), r"canonical form|not DAG-CBOR")


@pytest.mark.parametrize("block", [b"\xff", b"\x80\x80", b"\xa1", b"\x81" * 200_000])
def test_no_dag_cbor(block: bytes) -> None:
    blocks = Blocks()
    _refused(blocks, blocks.put_raw(block), "not DAG-CBOR")


def test_a_deeply_nested_entry() -> None:
    nested = b"\xa2\x61e" + b"\x81" * 100_000 + b"\x80" + b"\x61l\xf6"
    blocks = Blocks()
    _refused(blocks, blocks.put_raw(nested), "nested too deeply")


def test_keys_that_add_up_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(car_module, "EXPANSION_SLACK_BYTES", -(10**6))
    _node_refused({"l": None, "e": _low({})}, "keys add up to more")
