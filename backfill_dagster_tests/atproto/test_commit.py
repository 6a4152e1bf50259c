"""Commit blocks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.cid import RAW_CID_PREFIX, cid_of
from backfill_dagster.atproto.commit import Commit, read_commit
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor
from backfill_dagster.errors import InvalidRepoError
from backfill_dagster_tests.atproto.build_repo import DID, REV

DATA = cid_of(b"data")
PREV = cid_of(b"prev")
SIG = bytes(range(64))
V3: dict[str, Any] = {"did": DID, "version": 3, "data": Link(DATA), "rev": REV, "prev": None}
V2: dict[str, Any] = {"did": DID, "version": 2, "data": Link(DATA), "prev": Link(PREV)}


@pytest.mark.parametrize(
    ("fields", "rev", "prev"),
    [(V3, REV, None), ({**V3, "prev": Link(PREV)}, REV, PREV), (V2, None, PREV), ({**V2, "prev": None}, None, None)],
)
def test_commits(fields: dict[str, Any], rev: str | None, prev: bytes | None) -> None:
    assert read_commit(encode_dag_cbor({**fields, "sig": SIG})) == Commit(
        did=DID,
        version=fields["version"],
        data=DATA,
        rev=rev,
        prev=prev,
        sig=SIG,
        signed_bytes=encode_dag_cbor(fields),
    )


def test_a_signature_that_also_stands_in_a_link() -> None:
    # the field's own bytes, as far as a digest holds them, come after `sig` in canonical order
    fields = {**V3, "data": Link(DATA[:4] + b"\x63sig\x58\x40" + SIG[:26])}
    assert read_commit(encode_dag_cbor({**fields, "sig": SIG})).signed_bytes == encode_dag_cbor(fields)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 1}, "version is 1"),
        ({"version": 4}, "version is 4"),
        ({"version": True}, "version is True"),
        ({"version": 3.0}, "version is 3.0"),
        ({"version": "3"}, "version is 3"),
        ({"version": [3]}, "version is"),
        ({"version": ...}, "version is None"),
        ({"version": 2}, "fields data, did, prev, sig, version and no others"),
        ({"rev": ...}, "fields data, did, prev, rev, sig, version and no others"),
        ({"prev": ...}, "and no others"),
        ({"sig": ...}, "and no others"),
        ({"more": 1}, "and no others"),
        ({"did": 5}, "not a DID"),
        ({"did": "example.com"}, "not a DID"),
        ({"rev": None}, "not a TID"),
        ({"rev": "2024-01-01"}, "not a TID"),
        ({"data": None}, "its data is not a link"),
        ({"data": "text"}, "its data is not a link"),
        ({"data": Link(RAW_CID_PREFIX + DATA[4:])}, "its data is not a link"),
        ({"data": DATA}, "canonical form"),
        ({"prev": b""}, "its prev is neither"),
        ({"prev": PREV}, "canonical form"),
        ({"sig": b"short"}, "its sig is not 64 bytes"),
        ({"sig": "text"}, "its sig is not 64 bytes"),
        ({"sig": None}, "its sig is not 64 bytes"),
    ],
)
def test_what_is_no_commit(changes: dict[str, Any], problem: str) -> None:
    fields = {name: value for name, value in {**V3, "sig": SIG, **changes}.items() if value is not ...}
    with pytest.raises(InvalidRepoError, match=problem) as caught:
        read_commit(encode_dag_cbor(fields))
    assert caught.value.error_code == "InvalidCommit"


def test_long_forms_of_lengths_and_integers() -> None:
    good = encode_dag_cbor({**V3, "sig": SIG})
    for old, new in [
        (b"\x67version\x03", b"\x67version\x18\x03"),
        (b"\x63sig\x58\x40", b"\x63sig\x59\x00\x40"),
        (b"\x63did", b"\x78\x03did"),
        (b"\xa6\x63did", b"\xb8\x06\x63did"),
    ]:
        assert good.count(old) == 1
        with pytest.raises(InvalidRepoError, match="canonical form"):
            read_commit(good.replace(old, new))


@pytest.mark.parametrize("block", [b"", b"\x80", b"\xf6", b"\x81" * 100_000, encode_dag_cbor([V3])])
def test_no_object(block: bytes) -> None:
    with pytest.raises(InvalidRepoError, match=r"not DAG-CBOR|not an object"):
        read_commit(block)


@given(st.data())
def test_a_flipped_byte_is_another_commit_or_none(data: st.DataObject) -> None:
    good = encode_dag_cbor({**V3, "sig": SIG})
    at = data.draw(st.integers(0, len(good) - 1))
    flipped = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        commit = read_commit(flipped)
    except InvalidRepoError:
        return
    fields = {"did": commit.did, "version": 3, "data": Link(commit.data), "rev": commit.rev, "prev": None}
    assert encode_dag_cbor({**fields, "sig": commit.sig}) == flipped
    assert commit.signed_bytes == encode_dag_cbor(fields)
