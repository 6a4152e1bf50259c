"""Blocks in the AT Protocol's JSON: exact, or refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import cbrrr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.cid import cid_bytes, cid_of
from backfill_dagster.atproto.dag_cbor import Link, decode_dag_cbor, encode_dag_cbor
from backfill_dagster.records.record_json import block_json, record_json

CID = cid_of(b"x")
LINK_BLOCK_NOT_MINIMAL = bytes.fromhex("a16161d9002a582500") + CID
NUMBER_NOT_MINIMAL = bytes.fromhex("a161611801")


def text_of(value: Any) -> Any:
    block = value if isinstance(value, bytes) else encode_dag_cbor(value)
    return json.loads(record_json(decode_dag_cbor(block), block)[0])


def test_links_and_bytes_are_told_apart() -> None:
    link = {"$link": "bafyreibnoelefnzgwbcacyt4vh52ymxvzbjq7mmqhtcnwarfq4lzegsiqe"}
    found = text_of({"link": Link(CID), "bytes": CID, "list": [Link(CID), b"\xff\x00"], "float": 1.5})
    assert found["link"] == link
    assert found["list"] == [link, {"$bytes": "/wA"}]
    assert found["float"] == 1.5
    assert list(found["bytes"]) == ["$bytes"]


def test_bytes_without_any_link() -> None:
    assert text_of({"b": b"abc"}) == {"b": {"$bytes": "YWJj"}}
    assert text_of({"b": b"", "f": -0.5}) == {"b": {"$bytes": ""}, "f": -0.5}


def test_the_value_comes_along_in_json_form() -> None:
    block = encode_dag_cbor({"a": b"abc"})
    assert record_json(decode_dag_cbor(block), block)[1] == {"a": {"$bytes": "YWJj"}}
    plain = {"a": 1}
    assert record_json(plain, encode_dag_cbor(plain))[1] is plain


@pytest.mark.parametrize(
    "value",
    [{"$link": "x"}, {"a": [{"$bytes": "x"}]}, {"a": {"$link": 1, "b": Link(CID)}}, {"$bytes": 1, "f": 1.5, "b": b""}],
)
def test_reserved_keys_are_refused_because_json_could_not_be_read_back(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a key is \$link or \$bytes"):
        text_of(value)


@pytest.mark.parametrize(
    "value", [{"text": "$link and $bytes"}, {"$type": "x", "$linked": 1}, {"$type": "a$b", "x": "$"}]
)
def test_reserved_words_elsewhere_are_fine(value: dict[str, Any]) -> None:
    assert text_of(value) == value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_up_to_what_json_holds() -> None:
    assert text_of({"a": nested(253)}) == {"a": nested(253)}


@pytest.mark.parametrize(
    "value",
    [{"a": nested(254)}, {"a": nested(400), "b": Link(CID)}, {"a": -(2**64)}, {"a": -(2**63) - 1, "b": b"x"}],
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON can't hold the record"):
        text_of(value)
    assert block_json(encode_dag_cbor(value)) is None


def test_the_largest_integers_are_exact() -> None:
    value = {"a": 2**64 - 1, "b": -(2**63), "c": 2**53 + 1}
    assert text_of(value) == value
    assert text_of(value | {"d": b""}) == value | {"d": {"$bytes": ""}}


def test_blocks_in_other_than_the_shortest_form() -> None:
    assert text_of(NUMBER_NOT_MINIMAL) == {"a": 1}
    with pytest.raises(ValueError, match="not strict DAG-CBOR"):
        text_of(LINK_BLOCK_NOT_MINIMAL)


def test_json_of_any_block_for_the_quarantine() -> None:
    assert block_json(encode_dag_cbor([1, Link(CID)])) is not None
    assert block_json(encode_dag_cbor("text")) == b'"text"'
    assert block_json(b"\xff") is None
    assert block_json(encode_dag_cbor({"$link": 1})) is None


def values() -> st.SearchStrategy[Any]:
    plain = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False).filter(lambda one: str(one) != "-0.0"),
        st.text(),
        st.binary(max_size=20),
        st.binary(max_size=10).map(lambda data: Link(cid_of(data))),
    )
    keys = st.one_of(st.text(max_size=5), st.sampled_from(["$type", "$link", "$bytes", "a", "text"]))
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


def has_reserved_key(value: Any) -> bool:
    if isinstance(value, dict):
        return bool({"$link", "$bytes"} & set(value)) or any(map(has_reserved_key, value.values()))
    return isinstance(value, list) and any(map(has_reserved_key, value))


def from_json(value: Any) -> Any:
    """AT Protocol JSON back to what cbrrr encodes."""
    if isinstance(value, list):
        return [from_json(one) for one in value]
    if isinstance(value, dict):
        if set(value) == {"$link"}:
            return cbrrr.CID(cid_bytes(value["$link"]))
        if set(value) == {"$bytes"}:
            padded = value["$bytes"] + "=" * (-len(value["$bytes"]) % 4)
            return base64.b64decode(padded, validate=True)
        return {key: from_json(one) for key, one in value.items()}
    return value


@given(st.dictionaries(st.text(max_size=5), values(), max_size=5))
def test_json_goes_back_to_the_very_same_block(value: dict[str, Any]) -> None:
    block = encode_dag_cbor(value)
    if has_reserved_key(value):
        with pytest.raises(ValueError, match="keeps for links"):
            text_of(value)
        return
    assert cbrrr.encode_dag_cbor(from_json(text_of(value))) == block
