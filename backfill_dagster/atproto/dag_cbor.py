"""DAG-CBOR, the encoding of every block: bytes to Python values and back.

Decoding is libipld's, with its failures made one; nothing is checked here that the encoding itself doesn't ask for.
Source: https://ipld.io/specs/codecs/dag-cbor/spec/
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import libipld

_INT_MIN = -(2**64)
_INT_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a block, as `encode_dag_cbor` wants it; decoded links are plain `bytes`."""

    cid: bytes


def decode_dag_cbor(block: bytes) -> Any:
    """Decode one block. Links and byte strings both come out as `bytes`.

    Raises:
        ValueError: it isn't DAG-CBOR, or is nested deeper than Python's recursion limit (which must never be raised:
            the decoder would run out of stack instead).
    """
    try:
        return libipld.decode_dag_cbor(block)
    except RecursionError:
        # Without its cause: that traceback can't be told apart from a bug of this process.
        raise ValueError("the block is nested too deeply to be decoded") from None


def encode_dag_cbor(value: object) -> bytes:
    """Encode None, bool, int, float, str, bytes, `Link`, list and dict (text keys) in the one canonical form.

    Raises:
        ValueError: a value of another type, a float that is no number, an integer over 64 bits, or nesting beyond
            Python's recursion limit.
    """
    chunks: list[bytes] = []
    try:
        _encode(value, chunks)
    except RecursionError:
        raise ValueError("the value is nested too deeply to be encoded") from None
    return b"".join(chunks)


def cbor_head(major: int, number: int) -> bytes:
    """The first bytes of a CBOR item: its major type (0 to 7) and its shortest-form argument."""
    if number < 24:
        return bytes((major << 5 | number,))
    if number < 0x100:
        return bytes((major << 5 | 24, number))
    if number < 0x10000:
        return struct.pack(">BH", major << 5 | 25, number)
    if number < 0x100000000:
        return struct.pack(">BI", major << 5 | 26, number)
    return struct.pack(">BQ", major << 5 | 27, number)


def _encode(value: object, chunks: list[bytes]) -> None:
    match value:
        case None:
            chunks.append(b"\xf6")
        case bool():
            chunks.append(b"\xf5" if value else b"\xf4")
        case int() if _INT_MIN <= value <= _INT_MAX:
            chunks.append(cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value))
        case float() if math.isfinite(value):
            # There is one zero: the addition takes the sign off the other.
            chunks.append(b"\xfb" + struct.pack(">d", value + 0.0))
        case str():
            text = value.encode()
            chunks += (cbor_head(3, len(text)), text)
        case bytes():
            chunks += (cbor_head(2, len(value)), value)
        case Link():
            chunks += (b"\xd8\x2a", cbor_head(2, len(value.cid) + 1), b"\x00", value.cid)
        case list():
            chunks.append(cbor_head(4, len(value)))
            for item in value:
                _encode(item, chunks)
        case dict():
            _encode_map(value, chunks)
        case _:
            raise ValueError(f"{repr(value)[:100]} can't be encoded as DAG-CBOR")


def _encode_map(value: dict[str, object], chunks: list[bytes]) -> None:
    if not all(isinstance(key, str) for key in value):
        raise ValueError("a map's keys are text in DAG-CBOR")
    chunks.append(cbor_head(5, len(value)))
    for key in sorted(value, key=lambda key: (len(key.encode()), key.encode())):
        _encode(key, chunks)
        _encode(value[key], chunks)
