"""The JSON form of the data model; the protocol's vectors are in test_interop."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_dagster.atproto.cid import RAW_CID_PREFIX, cid_of, cid_text
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor
from backfill_dagster.atproto.data_model import encode_json_record, parse_json_record

CID = cid_of(b"\xa0")
BLOB_CID = RAW_CID_PREFIX + CID[4:]
BLOB = {"$type": "blob", "ref": {"$link": cid_text(BLOB_CID)}, "mimeType": "image/png", "size": 5}


def test_a_record_with_everything() -> None:
    record = {
        "$type": "com.example.blah",
        "null": None,
        "yes": True,
        "number": -5,
        "whole": 3.0,
        "list": [1, ["a"]],
        "link": {"$link": cid_text(CID)},
        "bytes": {"$bytes": "AQI"},
        "padded": {"$bytes": "AQI="},
        "blob": BLOB,
    }
    parsed = parse_json_record(record)
    assert parsed == {
        "$type": "com.example.blah",
        "null": None,
        "yes": True,
        "number": -5,
        "whole": 3,
        "list": [1, ["a"]],
        "link": Link(CID),
        "bytes": b"\x01\x02",
        "padded": b"\x01\x02",
        "blob": {"$type": "blob", "ref": Link(BLOB_CID), "mimeType": "image/png", "size": 5},
    }
    assert type(parsed["whole"]) is int
    assert encode_json_record(record) == encode_dag_cbor(parsed)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("text", "a record is an object"),
        ([], "a record is an object"),
        ({"$link": cid_text(CID)}, "neither a link nor bytes"),
        ({"a": 1.5}, r"record\.a: 1\.5 has no place"),
        ({"a": [0, float("nan")]}, r"record\.a\[1\]: nan"),
        ({"a": {1, 2}}, "no place"),
        ({"a": {"$type": None}}, r"record\.a: \$type"),
        ({"$type": ""}, r"\$type"),
        ({"$type": 5}, r"\$type"),
        ({"a": {"$link": "."}}, r"record\.a: '\.' is not a base32 CID"),
        ({"a": {"$link": 5}}, "the text of a CID"),
        ({"a": {"$link": cid_text(CID), "b": 1}}, "no other fields"),
        ({"a": {"$bytes": [1]}}, "is base64"),
        ({"a": {"$bytes": "AQI", "b": 1}}, "no other fields"),
        ({"a": {"$bytes": "A Q"}}, "is base64"),
        ({"a": {"$bytes": "A"}}, "not base64"),
        ({"a": {**BLOB, "size": "5"}}, "a blob has"),
        ({"a": {**BLOB, "size": True}}, "a blob has"),
        ({"a": {**BLOB, "mimeType": 5}}, "a blob has"),
        ({"a": {**BLOB, "ref": "text"}}, "a blob has"),
        ({"a": {"$type": "blob", "ref": BLOB["ref"], "size": 5}}, "a blob has"),
    ],
)
def test_what_breaks_the_data_model(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_json_record(value)


def test_nesting_is_a_clean_error() -> None:
    nested: dict[str, Any] = {}
    for _ in range(50_000):
        nested = {"a": nested}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json_record(nested)
