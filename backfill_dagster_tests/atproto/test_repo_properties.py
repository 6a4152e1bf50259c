"""Properties of whole repos: what was written is read; what was damaged is refused, and never with another error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.atproto.repo import Repo, Verify, open_repo
from backfill_dagster.errors import InvalidRepoError
from backfill_dagster_tests.atproto.build_repo import (
    DID,
    Blocks,
    BuiltRepo,
    K256Signer,
    P256Signer,
    Signer,
    build_repo,
    car_of,
)

SMALL = build_repo({"a.b.c/1": {"a": 1}, "a.b.c/2": {"b": "x"}, "app.bsky.feed.post/3": {}})
MIDDLE = build_repo({f"app.bsky.feed.post/k{number}": {"number": number} for number in range(60)})

_KEYS = st.builds(
    "{}/{}".format,
    st.sampled_from(["app.bsky.feed.post", "app.bsky.feed.like", "a.b.c", "a.b.cc"]),
    st.text("ab0-_.:~", min_size=1, max_size=6).filter(lambda text: text not in (".", "..")),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_RECORDS = st.dictionaries(_KEYS, st.dictionaries(st.text(max_size=5), _VALUES, max_size=3), max_size=60)
_SIGNERS: st.SearchStrategy[Signer] = st.sampled_from([K256Signer(), P256Signer()])


def _open(built: BuiltRepo, data: bytes, *, verify: Verify = "full", partial: bool = False) -> Repo:
    return open_repo(data, did=DID, signing_key=built.signing_key, verify=verify, partial=partial)


def _rows(repo: Repo) -> dict[str, bytes]:
    return {f"{collection}/{rkey}": repo.block(cid) for collection, rkey, cid in repo.entries}


def _refused(built: BuiltRepo, data: bytes) -> None:
    for partial in (False, True):
        with pytest.raises(InvalidRepoError):
            _open(built, data, partial=partial)


@settings(deadline=None)
@given(_RECORDS, _SIGNERS, st.randoms(use_true_random=False))
def test_any_repo_reads_back(records: dict[str, Any], signer: Signer, random: Any) -> None:
    built = build_repo(records, signer=signer)
    pairs = list(built.blocks.items())
    random.shuffle(pairs)
    repo = _open(built, car_of(built.root, pairs))
    assert [f"{collection}/{rkey}" for collection, rkey, _ in repo.entries] == sorted(records)
    assert _rows(repo) == built.records


@settings(deadline=None)
@given(_RECORDS, st.data())
def test_a_partial_repo_gives_right_rows_only(records: dict[str, Any], data: st.DataObject) -> None:
    built = build_repo(records)
    absent = data.draw(st.sets(st.sampled_from(sorted(set(built.blocks) - {built.root}))))
    rows = _rows(_open(built, built.car_without(*absent), partial=True))
    assert rows.items() <= built.records.items()
    if absent:
        with pytest.raises(InvalidRepoError, match="lacks"):
            _open(built, built.car_without(*absent))
    entries = _open(built, built.car).entries
    nodes = set(built.blocks) - {built.root} - {cid for _, _, cid in entries}
    if not absent & nodes:
        assert rows.keys() == {f"{collection}/{rkey}" for collection, rkey, cid in entries if cid not in absent}


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_each_byte_flipped(mask: int) -> None:
    for at in range(len(SMALL.car)):
        data = bytearray(SMALL.car)
        data[at] ^= mask
        with pytest.raises(InvalidRepoError):
            _open(SMALL, bytes(data))


def test_each_truncation() -> None:
    for length in range(len(SMALL.car)):
        with pytest.raises(InvalidRepoError):
            _open(SMALL, SMALL.car[:length])


def test_each_deletion() -> None:
    for at in range(len(SMALL.car)):
        with pytest.raises(InvalidRepoError):
            _open(SMALL, SMALL.car[:at] + SMALL.car[at + 1 :])


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damage_of_any_kind_is_refused(data: st.DataObject) -> None:
    car = MIDDLE.car
    at = data.draw(st.integers(0, len(car) - 1))
    match data.draw(st.sampled_from(["flip", "insert", "delete"])):
        case "flip":
            damaged = car[:at] + bytes([car[at] ^ data.draw(st.integers(1, 255))]) + car[at + 1 :]
        case "insert":
            damaged = car[:at] + data.draw(st.binary(min_size=1, max_size=5)) + car[at:]
        case _:
            damaged = car[:at] + car[at + data.draw(st.integers(1, 100)) :]
    assert damaged != car
    with pytest.raises(InvalidRepoError):
        _open(MIDDLE, damaged)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_without_cids_damage_is_read_or_refused_but_never_a_crash(data: st.DataObject) -> None:
    damaged = bytearray(MIDDLE.car)
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    for partial in (False, True):
        try:
            repo = _open(MIDDLE, bytes(damaged), verify="off", partial=partial)
        except InvalidRepoError:
            continue
        keys = [f"{collection}/{rkey}" for collection, rkey, _ in repo.entries]
        assert keys == sorted(set(keys))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_node_under_a_good_cid(data: st.DataObject) -> None:
    """The account's own server can sign anything: nodes are damaged before they are hashed."""
    blocks = Blocks(dict(MIDDLE.blocks))
    node = bytearray(MIDDLE.blocks[MIDDLE.data])
    for at in data.draw(st.lists(st.integers(0, len(node) - 1), min_size=1, max_size=3)):
        node[at] = data.draw(st.integers(0, 255))
    root = blocks.put_commit(blocks.put_raw(bytes(node)), K256Signer())
    if bytes(node) == MIDDLE.blocks[MIDDLE.data]:
        return
    car = car_of(root, blocks.by_cid.items())
    with pytest.raises(InvalidRepoError):
        _open(MIDDLE, car)
    try:
        keys = list(_rows(_open(MIDDLE, car, partial=True)))
    except InvalidRepoError:
        return
    assert keys == sorted(set(keys))


@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    _refused(SMALL, data)
    _refused(SMALL, SMALL.car[:59] + data)
