"""DAG-CBOR, both ways."""

from __future__ import annotations

from typing import Any

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.cid import cid_of
from backfill_dagster.atproto.dag_cbor import Link, cbor_head, decode_dag_cbor, encode_dag_cbor

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_VALUES)
def test_agrees_with_libipld(value: Any) -> None:
    block = encode_dag_cbor(value)
    assert block == libipld.encode_dag_cbor(value)
    assert decode_dag_cbor(block) == value


def test_there_is_no_negative_zero() -> None:
    assert encode_dag_cbor(-0.0) == encode_dag_cbor(0.0)
    with pytest.raises(ValueError, match="Negative zero"):
        decode_dag_cbor(bytes.fromhex("fb8000000000000000"))


def test_links() -> None:
    cid = cid_of(b"")
    block = encode_dag_cbor({"a": Link(cid)})
    assert block == b"\xa1\x61a\xd8\x2a\x58\x25\x00" + cid
    assert decode_dag_cbor(block) == {"a": cid}


@pytest.mark.parametrize(
    ("number", "head"),
    [
        (0, "40"),
        (23, "57"),
        (24, "5818"),
        (255, "58ff"),
        (256, "590100"),
        (65536, "5a00010000"),
        (2**32, "5b" + "00000001" + "00000000"),
    ],
)
def test_heads(number: int, head: str) -> None:
    assert cbor_head(2, number).hex() == head


@pytest.mark.parametrize(
    "value", [object(), {1}, float("nan"), float("inf"), 2**64, -(2**64) - 1, {1: "a"}, (), "\ud800"]
)
def test_what_it_cannot_encode(value: object) -> None:
    with pytest.raises(ValueError):
        encode_dag_cbor(value)


def test_nesting_is_a_clean_error() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="nested too deeply"):
        encode_dag_cbor(nested)
    with pytest.raises(ValueError, match="nested too deeply"):
        decode_dag_cbor(b"\x81" * 1_000_000 + b"\x80")


@pytest.mark.parametrize(
    "block", [b"", b"\x81", b"\xff", b"\x80\x80", b"\x61\xff", b"\xa2\x61b\x01\x61a\x01", b"\xc1\x01"]
)
def test_what_is_no_dag_cbor(block: bytes) -> None:
    with pytest.raises(ValueError, match="DAG-CBOR"):
        decode_dag_cbor(block)


@given(st.binary(max_size=64))
def test_random_bytes_never_crash(block: bytes) -> None:
    try:
        decode_dag_cbor(block)
    except ValueError:
        return
    assert block
