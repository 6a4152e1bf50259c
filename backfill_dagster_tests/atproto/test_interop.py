"""The protocol's own interoperability vectors, read from the folder that BACKFILL_INTEROP_VECTORS names."""

from __future__ import annotations

import base64
from collections.abc import Callable

import libipld
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from backfill_dagster.atproto.at_uri import is_at_uri
from backfill_dagster.atproto.cid import cid_of, cid_text, is_cid_text
from backfill_dagster.atproto.data_model import encode_json_record
from backfill_dagster.atproto.datetime import is_datetime, parse_datetime
from backfill_dagster.atproto.did import is_did
from backfill_dagster.atproto.handle import is_handle
from backfill_dagster.atproto.keys import check_signature, parse_did_key, parse_legacy_key
from backfill_dagster.atproto.mst import key_depth
from backfill_dagster.atproto.nsid import is_nsid
from backfill_dagster.atproto.record_key import is_record_key
from backfill_dagster.atproto.tid import is_tid, micros_of_tid, tid_from_micros
from backfill_dagster.errors import InvalidSignatureError
from backfill_dagster_tests.atproto.build_repo import K256Signer, P256Signer, level
from backfill_dagster_tests.atproto.outside_data import interop_json, interop_lines


def _is_at_identifier(text: str) -> bool:
    return is_did(text) or is_handle(text)


_SYNTAX = [
    ("did", is_did),
    ("handle", is_handle),
    ("atidentifier", _is_at_identifier),
    ("nsid", is_nsid),
    ("recordkey", is_record_key),
    ("tid", is_tid),
    ("aturi", is_at_uri),
    ("cid", is_cid_text),
    ("datetime", is_datetime),
]


@pytest.mark.parametrize(("name", "check"), _SYNTAX)
def test_valid_syntax(name: str, check: Callable[[str], bool]) -> None:
    assert [line for line in interop_lines(f"{name}_syntax_valid.txt") if not check(line)] == []


@pytest.mark.parametrize(("name", "check"), _SYNTAX)
def test_invalid_syntax(name: str, check: Callable[[str], bool]) -> None:
    assert [line for line in interop_lines(f"{name}_syntax_invalid.txt") if check(line)] == []


def test_datetimes_of_no_real_time() -> None:
    lines = interop_lines("datetime_parse_invalid.txt")
    assert [parse_datetime(line) for line in lines] == [None] * len(lines)


def test_valid_tids_survive_the_way_to_micros_and_back() -> None:
    for tid in interop_lines("tid_syntax_valid.txt"):
        assert tid_from_micros(micros_of_tid(tid))[:11] == tid[:11]


def test_signatures() -> None:
    vectors = interop_json("crypto/signature-fixtures.json")
    for vector in vectors:
        key = parse_did_key(vector["publicKeyDid"])
        assert parse_legacy_key(vector["didDocSuite"], vector["publicKeyMultibase"]) == key
        message, signature = _base64(vector["messageBase64"]), _base64(vector["signatureBase64"])
        assert key.verify(message, signature) is vector["validSignature"]
        if "high-s" in vector["tags"]:
            with pytest.raises(InvalidSignatureError, match="high-S") as caught:
                check_signature(key, message, signature)
            assert caught.value.error_code == "HighSSignature"
    assert len(vectors) == 6


def test_did_keys_k256() -> None:
    for vector in interop_json("crypto/w3c_didkey_K256.json"):
        secret = int(vector["privateKeyBytesHex"], 16)
        assert K256Signer(secret).public == parse_did_key(vector["publicDidKey"])
        assert parse_did_key(vector["publicDidKey"]).did_key == vector["publicDidKey"]


def test_did_keys_p256() -> None:
    for vector in interop_json("crypto/w3c_didkey_P256.json"):
        secret = int.from_bytes(libipld.decode_multibase("z" + vector["privateKeyBytesBase58"])[1], "big")
        assert ec.derive_private_key(secret, ec.SECP256R1()).key_size == 256
        assert P256Signer(secret).public.did_key == vector["publicDidKey"]


def test_key_heights() -> None:
    for vector in interop_json("mst/key_heights.json"):
        assert (key_depth(vector["key"].encode()), level(vector["key"])) == (vector["height"], vector["height"])


def test_data_model_fixtures() -> None:
    for vector in interop_json("data-model/data-model-fixtures.json"):
        block = encode_json_record(vector["json"])
        assert block == _base64(vector["cbor_base64"])
        assert cid_text(cid_of(block)) == vector["cid"]


def test_data_model_valid() -> None:
    for vector in interop_json("data-model/data-model-valid.json"):
        assert encode_json_record(vector["json"])[0] & 0xE0 == 0xA0, vector["note"]


def test_data_model_invalid() -> None:
    accepted = []
    for vector in interop_json("data-model/data-model-invalid.json"):
        try:
            encode_json_record(vector["json"])
        except ValueError:
            continue
        accepted.append(vector["note"])
    assert accepted == []


def _base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))
