"""CAR files given to the network: served as they are, with an expectation that an own reader worked out."""

from __future__ import annotations

import json
from pathlib import Path

import libipld
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet import Fault, LocalnetOptions, LocalNetwork
from backfill_dagster.localnet.blocks import car_header, cid_of, section
from backfill_dagster.localnet.generate import generate_repo
from backfill_dagster.localnet.given_car import read_given_car
from backfill_dagster.localnet.given_signature import is_signed_by
from backfill_dagster.localnet.repo_writer import blocks_of, keys_of
from backfill_dagster.localnet.signing import ORDER, SigningKey
from backfill_dagster_tests.localnet.client import client_of
from backfill_dagster_tests.localnet.plain_reader import sections_of

DID = "did:plc:" + "c" * 24
COUNTS = {"post": 4, "reply": 2, "app.bsky.actor.profile": 1, "com.example-notes.note": 2}
K256, P256 = SigningKey("k256", 777), SigningKey("p256", 888)


def car_of(key: SigningKey = K256) -> bytes:
    return generate_repo(1, 1, DID, key, COUNTS).car()


def document_of(key: SigningKey, *, legacy: bool = False) -> dict[str, object]:
    kind, multibase = key.legacy_form if legacy else ("Multikey", key.multikey)
    other = {"id": "#else", "type": "Multikey", "publicKeyMultibase": SigningKey("k256", 3).multikey}
    own = {"id": f"{DID}#atproto", "type": kind, "controller": DID, "publicKeyMultibase": multibase}
    gone = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "http://gone.example"}
    return {"id": DID, "alsoKnownAs": ["at://kept.example"], "verificationMethod": [other, own], "service": [gone]}


def put(folder: Path, car: bytes, document: object = None, name: str = "one.repo.car") -> Path:
    (folder / name).write_bytes(car)
    if document is not None:
        (folder / "one.did.json").write_text(json.dumps(document))
    return folder / name


@pytest.mark.parametrize("key", [K256, P256], ids=["k256", "p256"])
@pytest.mark.parametrize("legacy", [False, True])
async def test_with_its_document_it_is_complete(tmp_path: Path, key: SigningKey, legacy: bool) -> None:
    car = car_of(key)
    options = LocalnetOptions(hosts=2, repos=0, cars=(put(tmp_path, car, document_of(key, legacy=legacy)),))
    async with LocalNetwork(options) as network, client_of(network) as client:
        assert network.dids == [DID]
        assert network.expected == {DID: {"outcome": "complete", "records": COUNTS}}
        document = (await client.get(f"{network.plc_url}/{DID}")).json
        assert document["alsoKnownAs"] == ["at://kept.example"]
        assert [service["serviceEndpoint"] for service in document["service"]] == [network.hosts[0].url]
        assert (await client.repo(DID)).body == car
        assert (await client.repo(DID, since="3zzzzzzzzzzzz")).body == car
        latest = (await client.xrpc(0, "com.atproto.sync.getLatestCommit", did=DID)).json
        root, blocks = sections_of(car)
        assert latest == {"cid": libipld.encode_cid(root), "rev": libipld.decode_dag_cbor(dict(blocks)[root])["rev"]}
        got = await client.xrpc(0, "com.atproto.repo.listRecords", repo=DID, collection="app.bsky.feed.post")
        assert got.status == 501
        for route, body in (("/add", {"records": [{"collection": "a.b.c", "record": {}}]}), ("/rotate_key", {})):
            refused = await client.control(route, {"did": DID, **body})
            assert refused.status == 400
            assert "CAR file" in refused.json["error"]


async def test_without_a_document_only_the_structure_can_be_checked(tmp_path: Path) -> None:
    options = LocalnetOptions(hosts=1, repos=0, cars=(put(tmp_path, car_of()),))
    async with LocalNetwork(options) as network, client_of(network) as client:
        assert network.expected == {DID: {"outcome": "invalid_repo", "records": {}}}
        assert network.expected_structure == {DID: {"outcome": "complete", "records": COUNTS}}
        document = (await client.get(f"{network.plc_url}/{DID}")).json
        assert document["verificationMethod"][0]["publicKeyMultibase"] != K256.multikey
        assert (await client.control("/state")).json["expected"] == network.expected


def test_a_high_s_signature_is_not_good_enough() -> None:
    root, sections = sections_of(car_of(P256))
    commit = libipld.decode_dag_cbor(dict(sections)[root])
    assert is_signed_by(commit, document_of(P256))
    s = ORDER["p256"] - int.from_bytes(commit["sig"][32:], "big")
    high = {**commit, "sig": commit["sig"][:32] + s.to_bytes(32, "big")}
    r = int.from_bytes(high["sig"][:32], "big")
    # Without the rule about S it would pass: it is the same point.
    unsigned = libipld.encode_dag_cbor({name: value for name, value in commit.items() if name != "sig"})
    P256._p256.public_key().verify(utils.encode_dss_signature(r, s), unsigned, ec.ECDSA(SHA256()))
    assert not is_signed_by(high, document_of(P256))
    assert not is_signed_by(commit, document_of(K256))
    assert not is_signed_by({**commit, "rev": "other"}, document_of(P256))
    assert not is_signed_by({**commit, "sig": b"short"}, document_of(P256))
    assert not is_signed_by(commit, {"verificationMethod": []})
    assert not is_signed_by(
        commit, {"verificationMethod": [{"id": "#atproto", "type": "x", "publicKeyMultibase": "z0"}]}
    )


def test_a_partial_car_and_a_broken_tree_have_invalid_structure(tmp_path: Path) -> None:
    repo = generate_repo(1, 1, DID, K256, COUNTS)
    blocks = blocks_of(repo)
    dropped = next(iter(keys_of(repo.root, blocks).values()))
    commit = libipld.decode_dag_cbor(blocks[repo.root].block)
    for without in (dropped, commit["data"]):
        rest = b"".join(section(cid, block.block) for cid, block in blocks.items() if cid != without)
        given = read_given_car(put(tmp_path, car_header(repo.root) + rest))
        assert (given.structure, given.counts) == ("invalid_repo", {})


def test_an_old_repo_without_rev_is_served_too(tmp_path: Path) -> None:
    old = generate_repo(1, 1, DID, K256, COUNTS)
    blocks = blocks_of(old)
    commit = libipld.decode_dag_cbor(blocks.pop(old.root).block)
    unsigned = {"did": DID, "version": 2, "data": commit["data"], "prev": None}
    block = libipld.encode_dag_cbor({**unsigned, "sig": K256.sign(libipld.encode_dag_cbor(unsigned))})
    rest = b"".join(section(cid, kept.block) for cid, kept in blocks.items())
    car = car_header(cid_of(block)) + section(cid_of(block), block) + rest + rest
    given = read_given_car(put(tmp_path, car, document_of(K256)))
    assert (given.repo.rev, given.counts, given.structure, given.signature_ok) == ("", COUNTS, "complete", True)
    assert given.repo.car("3zzzzzzzzzzzz") == car


def test_files_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.car"):
        read_given_car(tmp_path / "none.car")
    for raw in (b"", b"not a car", car_header(cid_of(b"x"))):
        with pytest.raises(UsageError, match="is not the CAR file of a repo"):
            read_given_car(put(tmp_path, raw))
    put(tmp_path, car_of())
    for text in ("{", "[]"):
        (tmp_path / "one.did.json").write_text(text)
        with pytest.raises(UsageError, match="DID document"):
            read_given_car(tmp_path / "one.repo.car")


async def test_one_did_twice_is_refused_and_the_ports_are_free_again(tmp_path: Path) -> None:
    paths = (put(tmp_path, car_of()), put(tmp_path, car_of(), name="two.car"))
    network = LocalNetwork(LocalnetOptions(hosts=1, repos=1, states={}, cars=paths))
    with pytest.raises(UsageError, match="already in the network"):
        async with network:
            pass
    with pytest.raises(UsageError, match="names host 7"):
        async with LocalNetwork(LocalnetOptions(hosts=1, repos=1, faults=(Fault(kind="status", host=7),))):
            pass
