"""Whether a given CAR's commit is signed by the key of the document beside it: a check of its own, not `atproto`'s.

Source: https://atproto.com/specs/cryptography
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import libipld
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from backfill_dagster.localnet.signing import BASE58, MULTICODEC, ORDER

_CURVE_OF_TYPE = {"EcdsaSecp256k1VerificationKey2019": "k256", "EcdsaSecp256r1VerificationKey2019": "p256"}
_CURVES: dict[str, ec.EllipticCurve] = {"k256": ec.SECP256K1(), "p256": ec.SECP256R1()}


def is_signed_by(commit: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Whether the (decoded) commit has a low-S signature of the document's `#atproto` key."""
    signature = commit.get("sig")
    unsigned: bytes = libipld.encode_dag_cbor({name: value for name, value in commit.items() if name != "sig"})
    if not isinstance(signature, bytes) or len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        curve, point = _key_of(document)
        key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[curve], point)
        key.verify(utils.encode_dss_signature(r, s), unsigned, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError):
        return False
    return s <= ORDER[curve] // 2


def _key_of(document: Mapping[str, Any]) -> tuple[str, bytes]:
    """Curve and encoded point of the document's key; ValueError without one."""
    for method in document["verificationMethod"]:
        if not str(method["id"]).endswith("#atproto"):
            continue
        raw = _base58_bytes(method["publicKeyMultibase"].removeprefix("z"))
        if method["type"] in _CURVE_OF_TYPE:
            return _CURVE_OF_TYPE[method["type"]], raw
        for curve, prefix in MULTICODEC.items():
            if raw.startswith(prefix):
                return curve, raw[len(prefix) :]
    raise ValueError("no key")


def _base58_bytes(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
