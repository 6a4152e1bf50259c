"""CIDs: their text and binary forms, and the CID of a block. Looking blocks up by CID lives in `car`.

Inside repos and records the protocol allows one kind: version 1, sha256, codec dag-cbor (links) or raw (blobs),
36 bytes, written in base32.
Source: https://atproto.com/specs/data-model#link-and-cid-formats
"""

from __future__ import annotations

import hashlib
import re

import libipld

CID_LENGTH = 36
DAG_CBOR_CID_PREFIX = bytes.fromhex("01711220")
RAW_CID_PREFIX = bytes.fromhex("01551220")

_CID_TEXT = re.compile(r"(?!Qm[a-zA-Z0-9])[a-zA-Z0-9+=]{8,256}")
_CID_TEXT_LENGTH = 59


def cid_of(block: bytes) -> bytes:
    """The CID (36 bytes) of a DAG-CBOR block."""
    return DAG_CBOR_CID_PREFIX + hashlib.sha256(block).digest()


def cid_text(cid: bytes) -> str:
    """The text of a binary CID: multibase `b`, lower-case base32 without padding (`bafyrei...`)."""
    text: str = libipld.encode_multibase("b", cid)
    return text


def cid_bytes(text: str) -> bytes:
    """The 36 bytes of a CID's text.

    Raises:
        ValueError: `text` is not base32 (`b...`) of a version 1 sha256 CID with codec dag-cbor or raw.
    """
    if len(text) == _CID_TEXT_LENGTH and text[0] == "b":
        cid: bytes = libipld.decode_multibase(text)[1]
        if len(cid) == CID_LENGTH and cid[:4] in (DAG_CBOR_CID_PREFIX, RAW_CID_PREFIX) and cid_text(cid) == text:
            return cid
    raise ValueError(f"{text[:100]!r} is not a base32 CID of a DAG-CBOR or raw sha256 block")


def is_cid_text(text: str) -> bool:
    """Whether `text` passes as a CID in Lexicon's loose syntax: any multibase, any codec, but no version 0 (`Qm`)."""
    return _CID_TEXT.fullmatch(text) is not None
