"""DID documents of the network's accounts, in the forms that the PLC directory and did:web servers publish.

Source: https://atproto.com/specs/did
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backfill_dagster.localnet.accounts import Account, Identity

_CONTEXT = ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"]


def did_document(account: Account, pds_url: str) -> dict[str, Any]:
    """The document of an account whose PDS is said to be at `pds_url`."""
    kind, multibase = account.key.legacy_form if account.legacy_key_form else ("Multikey", account.key.multikey)
    method = {
        "id": "#atproto" if account.legacy_key_form else f"{account.did}#atproto",
        "type": kind,
        "controller": account.did,
        "publicKeyMultibase": multibase,
    }
    services = [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds_url}]
    return {
        "@context": _CONTEXT,
        "id": account.did,
        "alsoKnownAs": [f"at://{account.handle}"],
        "verificationMethod": [method],
        "service": [] if account.identity is Identity.NO_PDS else services,
    }


def given_document(document: Mapping[str, Any], pds_url: str) -> dict[str, Any]:
    """A document that came with a CAR file, its PDS replaced by the network's."""
    services = [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds_url}]
    return {**document, "service": services}


def plc_data(account: Account, pds_url: str) -> dict[str, Any]:
    """What the PLC directory answers at `/{did}/data`.

    Source: https://web.plc.directory/spec/v0.1/did-plc
    """
    service = {"type": "AtprotoPersonalDataServer", "endpoint": pds_url}
    return {
        "did": account.did,
        "verificationMethods": {"atproto": account.key.did_key},
        "rotationKeys": [account.key.did_key],
        "alsoKnownAs": [f"at://{account.handle}"],
        "services": {} if account.identity is Identity.NO_PDS else {"atproto_pds": service},
    }
