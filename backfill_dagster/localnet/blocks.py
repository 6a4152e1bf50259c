"""The bytes that repos are made of: CIDs, varints and the few DAG-CBOR heads that nodes and commits need.

Whole records are encoded by libipld or cbrrr; nothing here decodes. Written apart from `atproto` on purpose: what
writes the test repos must not share a mistake with what reads them.
Source: https://atproto.com/specs/data-model
"""

from __future__ import annotations

import hashlib

CID_PREFIX = b"\x01\x71\x12\x20"
"""CIDv1, DAG-CBOR, sha-256, 32 bytes."""

BLOB_CID_PREFIX = b"\x01\x55\x12\x20"
"""CIDv1, raw bytes, sha-256, 32 bytes: what a blob reference links to."""

NULL = b"\xf6"
_LINK_HEAD = b"\xd8\x2a\x58\x25\x00"


def cid_of(block: bytes) -> bytes:
    """The 36-byte CID of a DAG-CBOR block."""
    return CID_PREFIX + hashlib.sha256(block).digest()


def varint(number: int) -> bytes:
    """Unsigned LEB128, as CAR sections carry it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def head(major: int, number: int) -> bytes:
    """A CBOR head in its shortest form: major type 0-5 and its number or length (below 2^32)."""
    first = major << 5
    if number < 24:
        return bytes((first | number,))
    if number < 0x100:
        return bytes((first | 24, number))
    if number < 0x10000:
        return bytes((first | 25,)) + number.to_bytes(2, "big")
    return bytes((first | 26,)) + number.to_bytes(4, "big")


def text(value: str) -> bytes:
    """A CBOR text string."""
    raw = value.encode()
    return head(3, len(raw)) + raw


def data(value: bytes) -> bytes:
    """A CBOR byte string."""
    return head(2, len(value)) + value


def link(cid: bytes) -> bytes:
    """A CBOR link (tag 42) to a 36-byte CID."""
    return _LINK_HEAD + cid


def section(cid: bytes, block: bytes) -> bytes:
    """One CAR section: length, CID, block."""
    return varint(len(cid) + len(block)) + cid + block


def car_header(root: bytes) -> bytes:
    """The CAR's first section: version 1, one root (59 bytes).

    Source: https://ipld.io/specs/transport/car/carv1/
    """
    inner = b"\xa2\x65roots\x81" + link(root) + b"\x67version\x01"
    return varint(len(inner)) + inner
