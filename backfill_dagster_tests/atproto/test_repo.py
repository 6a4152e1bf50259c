"""Whole repos."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_dagster.atproto import car as car_module
from backfill_dagster.atproto.cid import cid_of, cid_text
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor
from backfill_dagster.atproto.repo import Repo, Verify, open_repo
from backfill_dagster.errors import InvalidRepoError, InvalidSignatureError
from backfill_dagster_tests.atproto.build_repo import (
    DID,
    K256_ORDER,
    P256_ORDER,
    REV,
    Blocks,
    BuiltRepo,
    K256Signer,
    P256Signer,
    Signer,
    build_repo,
    car_of,
    entry,
    flip_s,
    key_on_level,
)

RECORDS = {
    f"app.bsky.feed.{kind}/k{number}": {"n": number, "k": kind} for number in range(40) for kind in ("post", "like")
}
BUILT = build_repo(RECORDS)
LEVELS: list[Verify] = ["full", "structure", "off"]


def _open(built: BuiltRepo, data: bytes | None = None, **changes: Any) -> Repo:
    options = {"did": DID, "signing_key": built.signing_key, "verify": "full", **changes}
    return open_repo(built.car if data is None else data, **options)


def _keys(repo: Repo) -> list[str]:
    return [f"{collection}/{rkey}" for collection, rkey, _ in repo.entries]


@pytest.mark.parametrize("verify", LEVELS)
@pytest.mark.parametrize("signer", [K256Signer(), P256Signer()], ids=["k256", "p256"])
def test_a_repo_reads_back(signer: Signer, verify: Verify) -> None:
    built = build_repo(RECORDS, signer=signer)
    repo = _open(built, verify=verify)
    assert (repo.did, repo.rev, repo.version, repo.commit_cid) == (DID, REV, 3, cid_text(built.root))
    assert repo.signature_checked is (verify == "full")
    assert _keys(repo) == sorted(RECORDS)
    assert {key: repo.block(cid) for key, (_, _, cid) in zip(_keys(repo), repo.entries, strict=True)} == built.records


def test_an_empty_repo() -> None:
    built = build_repo({})
    assert _open(built).entries == []


def test_version_2() -> None:
    built = build_repo(RECORDS, version=2, rev=..., prev=Link(cid_of(b"before")))
    repo = _open(built)
    assert (repo.version, repo.rev, repo.signature_checked, _keys(repo)) == (2, None, True, sorted(RECORDS))


def test_one_record_under_two_keys() -> None:
    built = build_repo({"a.b.c/1": {"same": 1}, "a.b.c/2": {"same": 1}})
    first, second = _open(built).entries
    assert first[2] == second[2] == cid_of(encode_dag_cbor({"same": 1}))


def test_unreferenced_and_duplicate_blocks_are_legal() -> None:
    pairs = list(BUILT.blocks.items())
    odd = encode_dag_cbor({"referenced": False})
    repo = _open(BUILT, car_of(BUILT.root, [(cid_of(odd), odd), *pairs, *pairs[::-1]]))
    assert repo.entries == _open(BUILT).entries


@pytest.mark.parametrize("verify", LEVELS)
def test_every_block_is_needed(verify: Verify) -> None:
    for cid in BUILT.blocks:
        with pytest.raises(InvalidRepoError, match="lacks") as caught:
            _open(BUILT, BUILT.car_without(cid), verify=verify)
        assert caught.value.error_code == "MissingBlock"


def test_a_partial_repo_leaves_out_what_is_absent() -> None:
    whole = _open(BUILT).entries
    gone = {cid_of(BUILT.records[key]) for key in sorted(RECORDS)[::3]}
    repo = _open(BUILT, BUILT.car_without(*gone), partial=True)
    assert repo.entries == [entry for entry in whole if entry[2] not in gone]
    assert repo.signature_checked


def test_a_partial_repo_needs_its_commit() -> None:
    with pytest.raises(InvalidRepoError, match="lacks its root"):
        _open(BUILT, BUILT.car_without(BUILT.root), partial=True)
    assert _open(BUILT, BUILT.car_without(BUILT.data), partial=True).entries == []


def test_only_a_header() -> None:
    with pytest.raises(InvalidRepoError, match="lacks its root"):
        _open(BUILT, car_of(BUILT.root, []))


def test_another_did() -> None:
    with pytest.raises(InvalidRepoError, match=f"is of {DID}, not of did:plc:other") as caught:
        _open(BUILT, did="did:plc:other")
    assert caught.value.error_code == "DidMismatch"


@pytest.mark.parametrize("signing_key", ["", None])
def test_full_verification_needs_a_key(signing_key: str | None) -> None:
    with pytest.raises(InvalidSignatureError, match="no usable #atproto key") as caught:
        _open(BUILT, signing_key=signing_key)
    assert caught.value.error_code == "NoSigningKey"
    assert not _open(BUILT, signing_key=signing_key, verify="structure").signature_checked


def test_a_key_that_cannot_be_read() -> None:
    with pytest.raises(InvalidSignatureError, match="can't be read"):
        _open(BUILT, signing_key="did:key:znot")


def test_another_key() -> None:
    for other in (K256Signer(5), P256Signer(5)):
        with pytest.raises(InvalidSignatureError, match="not that of") as caught:
            _open(BUILT, signing_key=other.public.did_key)
        assert caught.value.error_code == "BadSignature"


@pytest.mark.parametrize(
    ("signer", "order"), [(K256Signer(), K256_ORDER), (P256Signer(), P256_ORDER)], ids=["k256", "p256"]
)
def test_a_high_s_signature(signer: Signer, order: int) -> None:
    data = build_repo(RECORDS).data
    fields = {"did": DID, "version": 3, "data": Link(data), "rev": REV, "prev": None}
    built = build_repo(RECORDS, signer=signer, sig=flip_s(signer.sign(encode_dag_cbor(fields)), order))
    with pytest.raises(InvalidSignatureError, match="high-S") as caught:
        _open(built)
    assert caught.value.error_code == "HighSSignature"
    assert _keys(_open(built, verify="structure")) == sorted(RECORDS)


def test_off_recomputes_no_cid() -> None:
    key = sorted(RECORDS)[0]
    cid = cid_of(BUILT.records[key])
    data = car_of(BUILT.root, {**BUILT.blocks, cid: b"\xa0"}.items())
    assert _open(BUILT, data, verify="off").block(cid) == b"\xa0"
    for verify in ("structure", "full"):
        with pytest.raises(InvalidRepoError, match="don't match its CID"):
            _open(BUILT, data, verify=verify)


def test_a_small_car_that_blows_up() -> None:
    # 100 keys on one record of 1 MB
    record = {"blob": bytes(2**20)}
    built = build_repo({f"a.b.c/k{number}": record for number in range(100)})
    assert len(built.car) < 1.1 * 2**20
    with pytest.raises(InvalidRepoError, match="add up to") as caught:
        _open(built, verify="structure")
    assert caught.value.error_code == "TooMuchExpansion"


def test_the_bound_counts_each_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_repo({f"a.b.c/k{number}": {"same": "x" * 1000} for number in range(50)})
    total = 50 * len(built.records["a.b.c/k0"])
    monkeypatch.setattr(car_module, "EXPANSION_SLACK_BYTES", total - 4 * len(built.car))
    assert len(_open(built).entries) == 50
    monkeypatch.setattr(car_module, "EXPANSION_SLACK_BYTES", total - 4 * len(built.car) - 1)
    with pytest.raises(InvalidRepoError, match="add up to"):
        _open(built)


@pytest.mark.parametrize("block", [b"\x81" * 300_000, b"\xff", encode_dag_cbor({"no": "commit"})])
def test_a_root_that_is_no_commit(block: bytes) -> None:
    data = car_of(cid_of(block), [(cid_of(block), block)])
    with pytest.raises(InvalidRepoError, match="commit is invalid"):
        _open(BUILT, data)


def test_a_deeply_nested_record_is_left_to_its_reader() -> None:
    block = b"\x81" * 200_000 + b"\x80"
    blocks = Blocks()
    data = blocks.put_node(None, entry(key_on_level(0).encode(), blocks.put_raw(block)))
    root = blocks.put_commit(data, K256Signer())
    repo = _open(BUILT, car_of(root, blocks.by_cid.items()))
    assert [repo.block(cid) for _, _, cid in repo.entries] == [block]


def test_a_bad_node_at_the_end_lets_no_entry_out() -> None:
    blocks = Blocks(dict(BUILT.blocks))
    bad = blocks.put({"l": None, "e": "bad"})
    high = key_on_level(1)
    data = blocks.put_node(None, entry(high.encode(), bad, tree=bad))
    root = blocks.put_commit(data, K256Signer())
    with pytest.raises(InvalidRepoError, match="MST node"):
        _open(BUILT, car_of(root, blocks.by_cid.items()))
