"""DID documents in the forms of the wild."""

from __future__ import annotations

from typing import Any

import coincurve
import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.did_document import DidDocument, parse_did_document
from backfill_dagster.errors import InvalidDidDocumentError
from backfill_dagster_tests.atproto.build_repo import DID, K256Signer, P256Signer

KEY = K256Signer(11).public
P256_KEY = P256Signer(11).public
PDS = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.example.com"}


def _method(multibase: str, key_type: str = "Multikey", key_id: str = f"{DID}#atproto") -> dict[str, Any]:
    return {"id": key_id, "type": key_type, "controller": DID, "publicKeyMultibase": multibase}


def _multibase(did_key: str) -> str:
    return did_key.removeprefix("did:key:")


def _document(**changes: Any) -> dict[str, Any]:
    document = {
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": DID,
        "alsoKnownAs": ["at://Alice.example.com"],
        "verificationMethod": [_method(_multibase(KEY.did_key))],
        "service": [PDS],
        **changes,
    }
    return {name: value for name, value in document.items() if value is not ...}


def test_a_whole_document() -> None:
    expected = DidDocument(DID, "alice.example.com", "https://pds.example.com", KEY.did_key)
    assert parse_did_document(_document(), DID) == expected


_UNCOMPRESSED = libipld.encode_multibase("z", coincurve.PublicKey(KEY.compressed).format(compressed=False))


@pytest.mark.parametrize(
    ("method", "did_key"),
    [
        (_method(_multibase(KEY.did_key), key_id="#atproto"), KEY.did_key),
        (_method(_multibase(P256_KEY.did_key)), P256_KEY.did_key),
        (_method(_UNCOMPRESSED, "EcdsaSecp256k1VerificationKey2019", "#atproto"), KEY.did_key),
        (
            _method(libipld.encode_multibase("z", P256_KEY.compressed), "EcdsaSecp256r1VerificationKey2019"),
            P256_KEY.did_key,
        ),
    ],
)
def test_key_forms(method: dict[str, Any], did_key: str) -> None:
    assert parse_did_document(_document(verificationMethod=[method]), DID).signing_key == did_key


@pytest.mark.parametrize(
    "methods",
    [
        ...,
        None,
        {},
        [],
        [None, "#atproto", 1],
        [_method(_multibase(KEY.did_key), key_id="#atproto_label")],
        [_method(_multibase(KEY.did_key), key_id="did:plc:other#atproto")],
        [_method(_multibase(KEY.did_key), key_type="JsonWebKey2020")],
        [_method("znot")],
        [{"id": "#atproto", "type": "Multikey"}],
        [{"id": "#atproto", "type": ["Multikey"], "publicKeyMultibase": _multibase(KEY.did_key)}],
        [{"id": ["#atproto"], "type": "Multikey", "publicKeyMultibase": _multibase(KEY.did_key)}],
    ],
)
def test_without_a_usable_key(methods: Any) -> None:
    document = parse_did_document(_document(verificationMethod=methods), DID)
    assert (document.signing_key, document.pds_endpoint) == ("", "https://pds.example.com")


def test_an_unusable_key_does_not_hide_a_usable_one() -> None:
    methods = [_method("znot"), _method(_multibase(KEY.did_key))]
    assert parse_did_document(_document(verificationMethod=methods), DID).signing_key == KEY.did_key


@pytest.mark.parametrize(
    ("aliases", "handle"),
    [
        (["https://example.com", 5, "at://not a handle", "at://Bob.test", "at://second.test"], "bob.test"),
        ([], ""),
        (..., ""),
        ("at://bob.test", ""),
        (["at://did:plc:abc"], ""),
    ],
)
def test_handles(aliases: Any, handle: str) -> None:
    assert parse_did_document(_document(alsoKnownAs=aliases), DID).handle == handle


@pytest.mark.parametrize(
    ("service", "endpoint"),
    [
        ({**PDS, "id": f"{DID}#atproto_pds"}, "https://pds.example.com"),
        ({**PDS, "serviceEndpoint": "http://localhost:2583/"}, "http://localhost:2583"),
        ({**PDS, "serviceEndpoint": "ftp://odd"}, "ftp://odd"),  # for `net` to refuse
    ],
)
def test_endpoints(service: Any, endpoint: str) -> None:
    assert parse_did_document(_document(service=[None, service]), DID).pds_endpoint == endpoint


@pytest.mark.parametrize(
    "services",
    [
        ...,
        None,
        PDS,
        [],
        [{**PDS, "id": "#bsky_appview"}],
        [{**PDS, "id": "did:plc:other#atproto_pds"}],
        [{**PDS, "type": "Other"}],
        [{**PDS, "serviceEndpoint": ["https://pds.example.com"]}],
        [{**PDS, "serviceEndpoint": ""}],
        [{**PDS, "serviceEndpoint": "/"}],
        [{**PDS, "serviceEndpoint": "https://" + "a" * 2048}],
    ],
)
def test_without_a_pds(services: Any) -> None:
    with pytest.raises(InvalidDidDocumentError, match="#atproto_pds") as caught:
        parse_did_document(_document(service=services), DID)
    assert caught.value.error_code == "NoPds"


@pytest.mark.parametrize("document_id", [..., None, 5, "did:plc:other", DID.upper()])
def test_about_another_did(document_id: Any) -> None:
    with pytest.raises(InvalidDidDocumentError, match=f"served for {DID} is about") as caught:
        parse_did_document(_document(id=document_id), DID)
    assert caught.value.error_code == "DidMismatch"


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_not_an_object(data: object) -> None:
    with pytest.raises(InvalidDidDocumentError, match="not a JSON object"):
        parse_did_document(data, DID)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["#atproto", "Multikey"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "type", "publicKeyMultibase", "serviceEndpoint"]), inner)
    ),
    max_leaves=10,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("service", "verificationMethod", "alsoKnownAs"), _JSON)))
def test_odd_documents_never_crash(parts: dict[str, Any]) -> None:
    try:
        document = parse_did_document(_document(**parts), DID)
    except InvalidDidDocumentError as error:
        assert error.error_code == "NoPds"
    else:
        assert document.did == DID
