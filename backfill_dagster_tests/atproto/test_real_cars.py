"""Real repos, read from the folder that BACKFILL_REAL_CARS names."""

from __future__ import annotations

import json
import mmap
from collections import Counter
from pathlib import Path

import libipld
import pytest

from backfill_dagster.atproto.car import scan_car
from backfill_dagster.atproto.commit import read_commit
from backfill_dagster.atproto.did_document import parse_did_document
from backfill_dagster.atproto.mst import walk_mst
from backfill_dagster.atproto.repo import Repo, open_repo
from backfill_dagster.errors import InvalidRepoError, InvalidSignatureError
from backfill_dagster_tests.atproto.outside_data import real_car

V2_DID = "did:plc:dpg45vsnuir2vqqqadsn6afg"
SLICE_DID = "did:plc:6evlgoug7wwijzxhzt2riyic"


def _open(name: str, did: str) -> Repo:
    return open_repo(real_car(name), did=did, signing_key=None, verify="structure")


def test_a_repo_of_24_collections() -> None:
    repo = _open("repostream_little.car", "did:plc:lulmyldiq4sb2ikags5sfb25")
    counts = Counter(collection for collection, _, _ in repo.entries)
    assert (repo.rev, repo.version, repo.signature_checked) == ("3m2jradrsah2s", 3, False)
    assert (len(repo.entries), len(counts)) == (278, 24)
    assert {name: count for name, count in counts.items() if name.startswith("app.bsky.")} == {
        "app.bsky.actor.profile": 1,
        "app.bsky.feed.like": 70,
        "app.bsky.feed.post": 85,
        "app.bsky.feed.repost": 51,
        "app.bsky.graph.block": 2,
        "app.bsky.graph.follow": 2,
    }


@pytest.mark.parametrize(
    ("name", "did", "records"),
    [
        ("repostream_tiny.car", "did:plc:7hptvnhdyeu53xp6rz7e42iy", 8),
        ("arroba_snarfed2.car", "did:plc:5zspv27pk4iqtrl2ql2nykjh", 5),
        ("repostream_empty.car", "did:plc:mhkgaud2jb4rypzt4ph2a3co", 0),
    ],
)
def test_small_repos(name: str, did: str, records: int) -> None:
    assert len(_open(name, did).entries) == records


@pytest.mark.parametrize("name", ["repostream_little.car", "arroba_snarfed2.car", "indigo_fakermaker.repo.car"])
def test_libipld_finds_the_same_blocks(name: str) -> None:
    data = real_car(name)
    header, decoded = libipld.decode_car(data)
    car = scan_car(data)
    assert car.root == header["roots"][0]
    assert {cid: libipld.decode_dag_cbor(car.blocks.block(cid)) for cid in car.blocks} == decoded


def test_a_version_2_repo() -> None:
    repo = _open("indigo_fakermaker.repo.car", V2_DID)
    assert (repo.rev, repo.version, len(repo.entries)) == (None, 2, 142)


def test_a_high_s_signature_is_named() -> None:
    document = parse_did_document(json.loads(real_car("indigo_fakermaker.did.json")), V2_DID)
    data = real_car("indigo_fakermaker.repo.car")
    with pytest.raises(InvalidSignatureError, match="high-S") as caught:
        open_repo(data, did=V2_DID, signing_key=document.signing_key, verify="full")
    assert caught.value.error_code == "HighSSignature"


def test_a_slice_is_refused_when_it_should_be_whole() -> None:
    with pytest.raises(InvalidRepoError, match="cut short"):
        _open("indigo_repo_slice.car", SLICE_DID)


def test_a_slice_read_as_one() -> None:
    data = real_car("indigo_repo_slice.car")
    repo = open_repo(data, did=SLICE_DID, signing_key=None, verify="structure", partial=True)
    assert [(collection, rkey) for collection, rkey, _ in repo.entries] == [("app.bsky.feed.post", "3jquh3emtzo2o")]
    car = scan_car(data)
    entries = walk_mst(car, read_commit(car.blocks.block(car.root)).data, partial=True)
    assert [(key, cid in car.blocks) for key, cid in entries] == [
        ("app.bsky.feed.post/3jquh3dxgi52o", False),
        ("app.bsky.feed.post/3jquh3dxv4v2o", False),
        ("app.bsky.feed.post/3jquh3ejfog2o", False),
        ("app.bsky.feed.post/3jquh3emtzo2o", True),
        ("app.bsky.system.declaration/self", False),
    ]


def test_a_mapped_file_reads_like_bytes(tmp_path: Path) -> None:
    data = real_car("repostream_tiny.car")
    spool = tmp_path / "spool"
    spool.write_bytes(data)
    did = "did:plc:7hptvnhdyeu53xp6rz7e42iy"
    with spool.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        repo = open_repo(mapped, did=did, signing_key=None, verify="structure")
        blocks = [repo.block(cid) for _, _, cid in repo.entries]
    plain = _open("repostream_tiny.car", did)
    assert (repo.entries, blocks) == (plain.entries, [plain.block(cid) for _, _, cid in plain.entries])
