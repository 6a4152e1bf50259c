"""CAR files: the framing, checked strictly, and an index of the blocks. What blocks mean lives in `commit` and `mst`.

Own code instead of libipld's `decode_car`, which checks less and decodes every record into memory, wanted or not.
Source: https://ipld.io/specs/transport/car/carv1/ and https://atproto.com/specs/repository#car-file-serialization
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from backfill_dagster.atproto.cid import CID_LENGTH, DAG_CBOR_CID_PREFIX, cid_text
from backfill_dagster.errors import InvalidRepoError

CarData: TypeAlias = bytes | mmap.mmap
"""The bytes of a CAR: in memory, or a spooled file mapped into it (keep it open while blocks are read)."""

SECTION_MAX_BYTES = 2 * 1024 * 1024
"""Bound of one section (CID and block) of a CAR; it also lets a block's length share an integer with its offset."""

EXPANSION_SLACK_BYTES = 64 * 1024 * 1024

# {"roots": [<link>], "version": 1} has one canonical encoding, so the header can be compared instead of parsed.
_HEADER_BEFORE_ROOT = b"\x3a\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
_HEADER_AFTER_ROOT = b"\x67version\x01"
_ROOT_START = len(_HEADER_BEFORE_ROOT)
_ROOT_STOP = _ROOT_START + CID_LENGTH

CAR_HEADER_BYTES = _ROOT_STOP + len(_HEADER_AFTER_ROOT)
"""Length of a CAR that is only a header: what getRepo answers when nothing is newer than `since`."""

_SECTION_MIN_BYTES = CID_LENGTH + 1
_LENGTH_BITS = 22
LENGTH_MASK = (1 << _LENGTH_BITS) - 1
"""The bits of a block's place that are its length in bytes."""
_VARINT_MAX_BYTES = 9


class BlockIndex:
    """Where each block of a CAR is: CID (36 bytes) to offset and length, packed into one integer each.

    `places` is that dict (`offset << 22 | length`) for loops that can't afford a call per block.
    """

    __slots__ = ("_data", "places")

    def __init__(self, data: CarData, places: dict[bytes, int]) -> None:
        self._data = data
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.places)

    def __contains__(self, cid: bytes) -> bool:
        return cid in self.places

    def block(self, cid: bytes) -> bytes:
        """The bytes of a block; KeyError when the CAR doesn't have it."""
        place = self.places[cid]
        start = place >> _LENGTH_BITS
        return self._data[start : start + (place & LENGTH_MASK)]

    def block_bytes(self, cid: bytes) -> int:
        """The length of a block in bytes; KeyError when the CAR doesn't have it."""
        return self.places[cid] & LENGTH_MASK


@dataclass(frozen=True, slots=True)
class Car:
    """A CAR whose framing is good.

    Attributes:
        root: CID of the commit (36 bytes); that its block is there is not said.
        blocks: where the blocks are.
        size_bytes: of the whole CAR.
    """

    root: bytes
    blocks: BlockIndex
    size_bytes: int

    @property
    def expansion_limit_bytes(self) -> int:
        """What its keys, or its records, may add up to when each entry counts.

        20,000 keys on one record of 1 MB make a CAR of 2.6 MB and 20 GB of rows; no honest repo comes near this.
        """
        return 4 * self.size_bytes + EXPANSION_SLACK_BYTES


def scan_car(data: CarData, verify_cids: bool = True) -> Car:
    """Check the framing of a CAR and index its blocks.

    Identical duplicates and blocks that nothing references are legal; every block must be DAG-CBOR under sha256.

    Args:
        data: the whole CAR.
        verify_cids: recompute the sha256 of every block.

    Raises:
        InvalidRepoError: anything else than one version 1 header with one root, followed by whole sections.
    """
    root = data[_ROOT_START:_ROOT_STOP]
    if (
        data[:_ROOT_START] != _HEADER_BEFORE_ROOT
        or data[_ROOT_STOP:CAR_HEADER_BYTES] != _HEADER_AFTER_ROOT
        or not root.startswith(DAG_CBOR_CID_PREFIX)
    ):
        raise InvalidRepoError(
            "the body is not a CAR of version 1 with one DAG-CBOR sha256 root", error_code="MalformedCar"
        )
    return Car(root, BlockIndex(data, _scan_sections(data, verify_cids)), len(data))


def _scan_sections(data: CarData, verify_cids: bool) -> dict[bytes, int]:
    places: dict[bytes, int] = {}
    position, end = CAR_HEADER_BYTES, len(data)
    while position < end:
        length = data[position]
        position += 1
        if length >= 0x80:
            # Nearly all lengths have two bytes: reading them here instead of in a call saves a tenth of the scan.
            if position < end and 0 < data[position] < 0x80:
                length = length & 0x7F | data[position] << 7
                position += 1
            else:
                length, position = _read_long_varint(data, position - 1)
        stop = position + length
        if not _SECTION_MIN_BYTES <= length <= SECTION_MAX_BYTES or stop > end:
            raise _malformed(position, f"a section of {length} bytes is cut off, too short or too long")
        start = position + CID_LENGTH
        cid = data[position:start]
        if not cid.startswith(DAG_CBOR_CID_PREFIX):
            raise _malformed(position, "a block's CID is not that of a DAG-CBOR sha256 block")
        if verify_cids and sha256(data[start:stop]).digest() != cid[4:]:
            raise InvalidRepoError(f"a block's bytes don't match its CID {cid_text(cid)}", error_code="CidMismatch")
        place = start << _LENGTH_BITS | (stop - start)
        known = places.setdefault(cid, place)
        if known != place and not _is_same_block(data, known, place):
            raise InvalidRepoError(f"two different blocks have the CID {cid_text(cid)}", error_code="CidMismatch")
        position = stop
    return places


def _read_long_varint(data: CarData, position: int) -> tuple[int, int]:
    """Read an unsigned varint of two bytes or more; returns it and the position after it."""
    value = 0
    for index, byte in enumerate(data[position : position + _VARINT_MAX_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0:
                raise _malformed(position, "a section's length is not in its shortest form")
            return value, position + index + 1
    raise _malformed(position, "a section's length is cut off or too long")


def _is_same_block(data: CarData, place: int, other: int) -> bool:
    length = place & LENGTH_MASK
    start, other_start = place >> _LENGTH_BITS, other >> _LENGTH_BITS
    return length == other & LENGTH_MASK and data[start : start + length] == data[other_start : other_start + length]


def _malformed(position: int, problem: str) -> InvalidRepoError:
    return InvalidRepoError(f"the CAR is malformed near byte {position}: {problem}", error_code="MalformedCar")
