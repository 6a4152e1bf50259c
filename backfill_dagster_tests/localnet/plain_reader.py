"""A reader of repos for these tests only: plain, strict, and written without looking at the writer."""

from __future__ import annotations

import hashlib
from typing import Any

import libipld
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

Sections = list[tuple[bytes, bytes]]

HALF_ORDER = {
    "k256": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2,
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 // 2,
}


def sections_of(car: bytes) -> tuple[bytes, Sections]:
    """The root CID and all (cid, block) in file order, every CID recomputed."""
    size, at = _varint(car, 0)
    header = libipld.decode_dag_cbor(car[at : at + size])
    assert set(header) == {"version", "roots"}
    assert header["version"] == 1
    (root,) = header["roots"]
    at += size
    out = []
    while at < len(car):
        size, at = _varint(car, at)
        cid, block = car[at : at + 36], car[at + 36 : at + size]
        assert len(cid) + len(block) == size
        assert cid == b"\x01\x71\x12\x20" + hashlib.sha256(block).digest()
        out.append((cid, block))
        at += size
    return root, out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return number, at


def depth_of(key: bytes) -> int:
    bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(key).digest())
    return (len(bits) - len(bits.lstrip("0"))) // 2


def walk(blocks: dict[bytes, bytes], cid: bytes, depth: int | None = None) -> list[tuple[str, bytes]]:
    """All (key, record cid) under a node, each rule of the tree checked on the way."""
    node = libipld.decode_dag_cbor(blocks[cid])
    assert set(node) == {"l", "e"}
    out: list[tuple[str, bytes]] = []
    before = b""
    own = [depth_of(key) for key in _keys_of(node)]
    assert len(set(own)) <= 1
    depth = own[0] if depth is None and own else depth
    assert own in ([], [depth] * len(own))
    if node["l"] is not None:
        out += walk(blocks, node["l"], depth - 1)
    for entry in node["e"]:
        assert set(entry) == {"p", "k", "v", "t"}
        key = before[: entry["p"]] + entry["k"]
        assert key > before
        if before:
            shared = next((i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), len(before))
            assert entry["p"] == shared
        else:
            assert entry["p"] == 0
        out.append((key.decode(), entry["v"]))
        before = key
        if entry["t"] is not None:
            out += walk(blocks, entry["t"], depth - 1)
    assert [key for key, _ in out] == sorted({key for key, _ in out})
    return out


def _keys_of(node: dict[str, Any]) -> list[bytes]:
    keys, before = [], b""
    for entry in node["e"]:
        before = before[: entry["p"]] + entry["k"]
        keys.append(before)
    return keys


def read_repo(car: bytes) -> tuple[dict[str, Any], dict[str, bytes], dict[bytes, bytes]]:
    """Commit, key -> record block, cid -> block of a whole repo without a block too many."""
    root, sections = sections_of(car)
    blocks = dict(sections)
    assert len(blocks) == len(sections)
    commit = libipld.decode_dag_cbor(blocks[root])
    entries = walk(blocks, commit["data"])
    return commit, {key: blocks[cid] for key, cid in entries}, blocks


def reachable(blocks: dict[bytes, bytes], cid: bytes) -> set[bytes]:
    """A node, its nodes below and their records, absent ones included."""
    out = {cid}
    if cid not in blocks:
        return out
    node = libipld.decode_dag_cbor(blocks[cid])
    for child in [node["l"], *(entry["t"] for entry in node["e"])]:
        if child is not None:
            out |= reachable(blocks, child)
    return out | {entry["v"] for entry in node["e"]}


def has_good_signature(commit: dict[str, Any], curve: str, point: bytes) -> bool:
    """Whether the commit is signed by this key, with a low S. Both curves go through `cryptography`."""
    unsigned = libipld.encode_dag_cbor({name: value for name, value in commit.items() if name != "sig"})
    r, s = int.from_bytes(commit["sig"][:32], "big"), int.from_bytes(commit["sig"][32:], "big")
    assert len(commit["sig"]) == 64
    assert s <= HALF_ORDER[curve]
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1() if curve == "k256" else ec.SECP256R1(), point)
    try:
        key.verify(utils.encode_dss_signature(r, s), unsigned, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
