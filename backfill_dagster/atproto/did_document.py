"""DID documents: the three things this project needs of one, from any of the forms in the wild.

Pure reading of a parsed JSON value; fetching and caching lives in `identity`, judging the endpoint's address in `net`.
Source: https://atproto.com/specs/did#did-documents
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from backfill_dagster.atproto.handle import is_handle
from backfill_dagster.atproto.keys import parse_legacy_key, parse_multikey
from backfill_dagster.errors import InvalidDidDocumentError

ENDPOINT_MAX_LENGTH = 2048


@dataclass(frozen=True, slots=True)
class DidDocument:
    """What a DID document says about an account.

    Attributes:
        did: the DID it is about.
        handle: from alsoKnownAs, unverified, lower case; empty when there is none.
        pds_endpoint: the PDS' URL as written, without a trailing slash; not yet judged.
        signing_key: the `#atproto` key as did:key; empty when there is none that can be used.
    """

    did: str
    handle: str
    pds_endpoint: str
    signing_key: str


def parse_did_document(data: object, did: str) -> DidDocument:
    """Read a DID document (the parsed JSON) that should be about `did`.

    Raises:
        InvalidDidDocumentError: it isn't an object, is about another DID (`error_code` DidMismatch), or names no
            PDS (`NoPds`).
    """
    if not isinstance(data, dict):
        raise InvalidDidDocumentError(
            f"the DID document of {did} is not a JSON object", error_code="InvalidDidDocument"
        )
    if data.get("id") != did:
        raise InvalidDidDocumentError(
            f"the DID document served for {did} is about {str(data.get('id'))[:100]!r}", error_code="DidMismatch"
        )
    endpoint = _pds_endpoint(data, did)
    if not endpoint:
        raise InvalidDidDocumentError(
            f"the DID document of {did} has no service #atproto_pds of type AtprotoPersonalDataServer",
            error_code="NoPds",
        )
    return DidDocument(did, _handle(data), endpoint, _signing_key(data, did))


def _items(data: Mapping[str, object], name: str) -> list[object]:
    items = data.get(name)
    return items if isinstance(items, list) else []


def _with_id(data: Mapping[str, object], name: str, did: str, fragment: str) -> Iterator[Mapping[str, object]]:
    for item in _items(data, name):
        if isinstance(item, dict) and item.get("id") in (fragment, did + fragment):
            yield item


def _pds_endpoint(data: Mapping[str, object], did: str) -> str:
    for service in _with_id(data, "service", did, "#atproto_pds"):
        endpoint = service.get("serviceEndpoint")
        if (
            service.get("type") == "AtprotoPersonalDataServer"
            and isinstance(endpoint, str)
            and len(endpoint) <= ENDPOINT_MAX_LENGTH
        ):
            return endpoint.removesuffix("/")
    return ""


def _handle(data: Mapping[str, object]) -> str:
    for alias in _items(data, "alsoKnownAs"):
        if isinstance(alias, str) and alias.startswith("at://") and is_handle(alias[5:]):
            return alias[5:].lower()
    return ""


def _signing_key(data: Mapping[str, object], did: str) -> str:
    for method in _with_id(data, "verificationMethod", did, "#atproto"):
        key_type, multibase = method.get("type"), method.get("publicKeyMultibase")
        if not isinstance(key_type, str) or not isinstance(multibase, str):
            continue
        try:
            is_multikey = key_type == "Multikey"
            key = parse_multikey(multibase) if is_multikey else parse_legacy_key(key_type, multibase)
        except ValueError:
            continue
        return key.did_key
    return ""
