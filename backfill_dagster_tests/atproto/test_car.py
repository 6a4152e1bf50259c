"""The framing of CARs."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from backfill_dagster.atproto.car import CAR_HEADER_BYTES, LENGTH_MASK, SECTION_MAX_BYTES, scan_car
from backfill_dagster.atproto.cid import RAW_CID_PREFIX, cid_of
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor
from backfill_dagster.errors import InvalidRepoError
from backfill_dagster_tests.atproto.build_repo import car_of, section, varint

BLOCKS = [encode_dag_cbor({"n": number, "text": "x" * number}) for number in (0, 100, 20_000)]
PAIRS = [(cid_of(block), block) for block in BLOCKS]
ROOT = PAIRS[0][0]
HEADER = car_of(ROOT, [])
GOOD = car_of(ROOT, PAIRS)
ONE = PAIRS[1]


def _refused(data: bytes, problem: str, *, verify_cids: bool = True) -> None:
    with pytest.raises(InvalidRepoError, match=problem):
        scan_car(data, verify_cids)


@pytest.mark.parametrize("verify_cids", [True, False])
def test_blocks_are_found(verify_cids: bool) -> None:
    car = scan_car(GOOD, verify_cids)
    assert (car.root, car.size_bytes, len(car.blocks)) == (ROOT, len(GOOD), 3)
    assert [(cid, car.blocks.block(cid), car.blocks.block_bytes(cid)) for cid in car.blocks] == [
        (cid, block, len(block)) for cid, block in PAIRS
    ]
    assert [place & LENGTH_MASK for place in car.blocks.places.values()] == [len(block) for block in BLOCKS]
    assert ROOT in car.blocks
    assert car.expansion_limit_bytes == 4 * len(GOOD) + 64 * 2**20


def test_an_absent_block_is_a_key_error() -> None:
    car = scan_car(HEADER)
    assert ROOT not in car.blocks
    with pytest.raises(KeyError):
        car.blocks.block(ROOT)
    with pytest.raises(KeyError):
        car.blocks.block_bytes(ROOT)


def test_only_a_header() -> None:
    car = scan_car(HEADER)
    assert (car.root, len(car.blocks), len(HEADER)) == (ROOT, 0, CAR_HEADER_BYTES)


def test_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(GOOD)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        car = scan_car(mapped)
        assert [(cid, car.blocks.block(cid)) for cid in car.blocks] == PAIRS


def test_identical_duplicates_are_legal() -> None:
    car = scan_car(car_of(ROOT, [*PAIRS, *PAIRS]))
    assert [(cid, car.blocks.block(cid)) for cid in car.blocks] == PAIRS


def test_one_cid_with_two_blocks() -> None:
    for other in (BLOCKS[2], BLOCKS[1][:-1] + b"y"):
        data = car_of(ROOT, [ONE, (ONE[0], other)])
        _refused(data, "don't match its CID")
        _refused(data, "two different blocks", verify_cids=False)


def test_bytes_that_are_not_their_cids() -> None:
    data = car_of(ROOT, [(ONE[0], BLOCKS[2])])
    _refused(data, "don't match its CID")
    assert len(scan_car(data, verify_cids=False).blocks) == 1


@pytest.mark.parametrize(
    "header",
    [
        {"version": 2, "roots": [Link(ROOT)]},
        {"version": True, "roots": [Link(ROOT)]},
        {"version": 1, "roots": []},
        {"version": 1, "roots": [Link(ROOT), Link(ROOT)]},
        {"version": 1, "roots": [ROOT]},
        {"version": 1, "roots": Link(ROOT)},
        {"version": 1, "roots": [Link(RAW_CID_PREFIX + ROOT[4:])]},
        {"version": 1, "roots": [None]},
        {"version": 1, "roots": [Link(ROOT)], "more": 1},
        {"version": 1},
        {"roots": [Link(ROOT)]},
        [],
        None,
    ],
)
def test_other_headers(header: object) -> None:
    encoded = encode_dag_cbor(header)
    _refused(varint(len(encoded)) + encoded + section(*PAIRS[0]), "not a CAR of version 1")


@pytest.mark.parametrize("data", [b"", b"\x00", b"<html>", HEADER[:-1], HEADER[1:], b"\xba\x00" + HEADER[1:]])
def test_what_is_no_car_at_all(data: bytes) -> None:
    _refused(data, "not a CAR of version 1")


@pytest.mark.parametrize(
    "tail",
    [
        b"\x00",
        b"\x05abcde",
        varint(36) + ONE[0],
        varint(37) + ONE[0],
        section(*ONE)[:-1],
        varint(37) + ONE[0][:-1],
        varint(SECTION_MAX_BYTES + 1) + ONE[0] + bytes(SECTION_MAX_BYTES - 35),
        varint(2**62) + ONE[0],
    ],
)
def test_sections_of_a_wrong_length(tail: bytes) -> None:
    _refused(GOOD + tail, "cut off, too short or too long")


@pytest.mark.parametrize(
    ("length", "problem"),
    [
        (b"\xa5\x00", "not in its shortest form"),
        (b"\x80\x80\x00", "not in its shortest form"),
        (b"\xa5\x80\x80\x80\x00", "not in its shortest form"),
        (b"\xff" * 9, "cut off or too long"),
        (b"\xff" * 20, "cut off or too long"),
        (b"\x80", "cut off or too long"),
        (b"\xff\xff\xff", "cut off or too long"),
    ],
)
def test_lengths_in_a_wrong_form(length: bytes, problem: str) -> None:
    _refused(GOOD + length, problem)


def test_the_largest_section() -> None:
    block = b"\x5a" + (SECTION_MAX_BYTES - 41).to_bytes(4, "big") + bytes(SECTION_MAX_BYTES - 41)
    cid = cid_of(block)
    assert len(cid) + len(block) == SECTION_MAX_BYTES
    car = scan_car(car_of(ROOT, [(cid, block), ONE]))
    assert (car.blocks.block(cid), car.blocks.block(ONE[0])) == (block, ONE[1])


@pytest.mark.parametrize("prefix", ["01551220", "01711320", "01711221", "12200000", "02711220"])
def test_other_kinds_of_cids(prefix: str) -> None:
    _refused(car_of(ROOT, [(bytes.fromhex(prefix) + ONE[0][4:], ONE[1])]), "not that of a DAG-CBOR sha256 block")
