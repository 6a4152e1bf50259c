"""A small repo writer for tests: the MST straight from sorted keys, signed, as a CAR.

Made without the package's own reading code (levels and varints are counted anew here), so that both judge each other.
It also writes what is wrong on purpose: nodes and commits are plain dicts, blocks a plain list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import coincurve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from backfill_dagster.atproto.cid import cid_of
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor
from backfill_dagster.atproto.keys import Curve, PublicKey

DID = "did:plc:abcdefghijklmnopqrstuvwx"
REV = "3lscuqc52or2x"
K256_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Signer(Protocol):
    """Whatever signs commits in tests."""

    public: PublicKey

    def sign(self, message: bytes) -> bytes:
        """R and s, 64 bytes."""
        ...


class K256Signer:
    """Signs with secp256k1, low-S."""

    def __init__(self, secret: int = 7) -> None:
        self._key = coincurve.PrivateKey(secret.to_bytes(32, "big"))
        self.public = PublicKey(Curve.K256, self._key.public_key.format())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign_recoverable(message)[:64]


class P256Signer:
    """Signs with secp256r1, low-S."""

    def __init__(self, secret: int = 7) -> None:
        self._key = ec.derive_private_key(secret, ec.SECP256R1())
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        self.public = PublicKey(Curve.P256, point)

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


def flip_s(signature: bytes, order: int) -> bytes:
    """The same signature in its other form: high-S of a low-S one."""
    return signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


def level(key: str) -> int:
    """The MST level of a key, counted on the digits of its hash."""
    bits = f"{int(sha256(key.encode()).hexdigest(), 16):0256b}"
    return (len(bits) - len(bits.lstrip("0"))) // 2


def key_on_level(wanted: int, collection: str = "app.bsky.feed.post", start: int = 0) -> str:
    """The first key `<collection>/k<number>` from `start` on that lives on a level."""
    number = start
    while level(f"{collection}/k{number:06d}") != wanted:
        number += 1
    return f"{collection}/k{number:06d}"


def varint(number: int) -> bytes:
    """An unsigned varint."""
    chunks = bytearray()
    while number >= 0x80:
        chunks.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*chunks, number])


def section(cid: bytes, block: bytes) -> bytes:
    """One section of a CAR."""
    return varint(len(cid) + len(block)) + cid + block


def car_of(root: bytes, blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A CAR of (CID, block) pairs in their order."""
    header = encode_dag_cbor({"version": 1, "roots": [Link(root)]})
    return varint(len(header)) + header + b"".join(section(cid, block) for cid, block in blocks)


def entry(key: bytes, value: bytes, *, prefix: int = 0, tree: bytes | None = None) -> dict[str, Any]:
    """One entry of a node; `key` is what comes after the prefix."""
    return {"p": prefix, "k": key, "v": Link(value), "t": None if tree is None else Link(tree)}


@dataclass
class Blocks:
    """Blocks by CID, in the order they were put."""

    by_cid: dict[bytes, bytes] = field(default_factory=dict)

    def put(self, value: Any) -> bytes:
        """Encode a value, keep its block, return its CID."""
        return self.put_raw(encode_dag_cbor(value))

    def put_raw(self, block: bytes) -> bytes:
        cid = cid_of(block)
        self.by_cid[cid] = block
        return cid

    def put_node(self, left: bytes | None, *entries: dict[str, Any]) -> bytes:
        return self.put({"l": None if left is None else Link(left), "e": list(entries)})

    def put_tree(self, records: Mapping[str, bytes]) -> bytes:
        """The MST of key -> record CID; returns its root node's CID."""
        keys = sorted(records)
        if not keys:
            return self.put_node(None)
        leveled = [(key, level(key)) for key in keys]
        cid = self._put_range(leveled, records, max(depth for _, depth in leveled))
        assert cid is not None
        return cid

    def _put_range(self, keys: list[tuple[str, int]], records: Mapping[str, bytes], depth: int) -> bytes | None:
        if not keys:
            return None
        own = [index for index, (_, level_of_key) in enumerate(keys) if level_of_key == depth]
        ends = [*own, len(keys)]
        left = self._put_range(keys[: ends[0]], records, depth - 1)
        entries, previous = [], b""
        for index, end in zip(own, ends[1:], strict=True):
            key = keys[index][0].encode()
            shared = 0
            while shared < min(len(previous), len(key)) and previous[shared] == key[shared]:
                shared += 1
            tree = self._put_range(keys[index + 1 : end], records, depth - 1)
            entries.append(entry(key[shared:], records[keys[index][0]], prefix=shared, tree=tree))
            previous = key
        return self.put_node(left, *entries)

    def put_commit(self, data: bytes, signer: Signer, **changes: Any) -> bytes:
        """A signed commit of version 3 (`changes` override fields; a field given as ... is left out)."""
        fields = {"did": DID, "version": 3, "data": Link(data), "rev": REV, "prev": None, **changes}
        fields = {name: value for name, value in fields.items() if value is not ...}
        sig = fields.pop("sig", None)
        if sig is None:
            sig = signer.sign(encode_dag_cbor(fields))
        return self.put({**fields, "sig": sig})


@dataclass(frozen=True)
class BuiltRepo:
    """A repo as it was meant: `records` is key -> block."""

    car: bytes
    root: bytes
    data: bytes
    records: dict[str, bytes]
    blocks: dict[bytes, bytes]
    signing_key: str

    def car_without(self, *absent: bytes) -> bytes:
        """Its CAR with some blocks left out."""
        return car_of(self.root, [(cid, block) for cid, block in self.blocks.items() if cid not in absent])


def build_repo(
    records: Mapping[str, Any] | None = None, *, signer: Signer | None = None, **commit_changes: Any
) -> BuiltRepo:
    """Write a repo of key -> record value."""
    signer = signer or K256Signer()
    blocks = Blocks()
    encoded = {key: encode_dag_cbor(value) for key, value in (records or {}).items()}
    data = blocks.put_tree({key: blocks.put_raw(block) for key, block in encoded.items()})
    root = blocks.put_commit(data, signer, **commit_changes)
    return BuiltRepo(
        car=car_of(root, blocks.by_cid.items()),
        root=root,
        data=data,
        records=encoded,
        blocks=blocks.by_cid,
        signing_key=signer.public.did_key,
    )
