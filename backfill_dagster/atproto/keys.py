"""Public keys and signatures of the two curves the protocol knows, k256 (secp256k1) and p256 (secp256r1).

Reading keys in all their text forms, and verifying. Which key is an account's: `did_document`. Nothing here signs.
Source: https://atproto.com/specs/cryptography
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import coincurve
import libipld
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from backfill_dagster.errors import InvalidSignatureError

SIGNATURE_LENGTH = 64


class Curve(StrEnum):
    """The two elliptic curves."""

    K256 = "k256"
    P256 = "p256"


_MULTICODEC = {Curve.K256: b"\xe7\x01", Curve.P256: b"\x80\x24"}
_GROUP_ORDER = {
    Curve.K256: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    Curve.P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
_LEGACY_TYPES = {
    "EcdsaSecp256k1VerificationKey2019": Curve.K256,
    "EcdsaSecp256r1VerificationKey2019": Curve.P256,
}
# Base58 decoding is quadratic: nothing a key can need is longer.
_MULTIBASE_MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: its curve and its point, compressed to 33 bytes."""

    curve: Curve
    compressed: bytes

    @property
    def did_key(self) -> str:
        """The key as `did:key:z...`."""
        text: str = libipld.encode_multibase("z", _MULTICODEC[self.curve] + self.compressed)
        return "did:key:" + text

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` (r and s, 64 bytes, low-S) is this key's over sha256 of `message`; False on all else."""
        return _problem(self, message, signature) is None


def check_signature(key: PublicKey, message: bytes, signature: bytes) -> None:
    """Verify a signature, saying what is wrong with it.

    Args:
        key: the key that should have signed.
        message: what was signed (hashed with sha256 here).
        signature: r and s, 32 bytes each, big-endian, with s in the lower half of the group order.

    Raises:
        InvalidSignatureError: `error_code` is `HighSSignature` when only the form is wrong, else `BadSignature`.
    """
    problem = _problem(key, message, signature)
    if problem is not None:
        code, text = problem
        raise InvalidSignatureError(text, error_code=code)


def parse_did_key(text: str) -> PublicKey:
    """Read `did:key:z...`.

    Raises:
        ValueError: it is not a did:key of a k256 or p256 key.
    """
    if not text.startswith("did:key:"):
        raise ValueError(f"{text[:100]!r} is not a did:key")
    return parse_multikey(text.removeprefix("did:key:"))


def parse_multikey(multibase: str) -> PublicKey:
    """Read the `publicKeyMultibase` of a Multikey: base58btc of a multicodec prefix and a compressed point.

    Raises:
        ValueError: it is not that, or of another curve, or not a point on its curve.
    """
    decoded = _decode_base58(multibase)
    for curve, prefix in _MULTICODEC.items():
        if decoded.startswith(prefix) and len(decoded) == 35:
            return _from_point(curve, decoded[2:])
    raise ValueError(f"{multibase[:100]!r} is not a k256 or p256 Multikey")


def parse_legacy_key(key_type: str, multibase: str) -> PublicKey:
    """Read the `publicKeyMultibase` of the older verification methods: the point without a multicodec prefix.

    Args:
        key_type: EcdsaSecp256k1VerificationKey2019 or EcdsaSecp256r1VerificationKey2019.
        multibase: base58btc of the point, uncompressed (65 bytes) or compressed (33).

    Raises:
        ValueError: another type, or not a point on its curve.
    """
    if key_type not in _LEGACY_TYPES:
        raise ValueError(f"{key_type[:100]!r} is not a key type this project knows")
    return _from_point(_LEGACY_TYPES[key_type], _decode_base58(multibase))


def _decode_base58(multibase: str) -> bytes:
    if not multibase.startswith("z") or len(multibase) > _MULTIBASE_MAX_LENGTH:
        raise ValueError(f"{multibase[:100]!r} is not base58btc (z...) of a public key")
    decoded: bytes = libipld.decode_multibase(multibase)[1]
    return decoded


def _from_point(curve: Curve, point: bytes) -> PublicKey:
    # The libraries also take hybrid points (06, 07), which no specification here allows.
    if (len(point), point[:1]) not in ((33, b"\x02"), (33, b"\x03"), (65, b"\x04")):
        raise ValueError("a public key is a point of 33 bytes (compressed) or 65 (uncompressed)")
    if curve is Curve.K256:
        return PublicKey(curve, coincurve.PublicKey(point).format(compressed=True))
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    return PublicKey(curve, key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))


def _problem(key: PublicKey, message: bytes, signature: bytes) -> tuple[str, str] | None:
    if len(signature) != SIGNATURE_LENGTH:
        return "BadSignature", f"a signature has {SIGNATURE_LENGTH} bytes (r and s), this one has {len(signature)}"
    order = _GROUP_ORDER[key.curve]
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if 0 < r < order and 0 < s < order:
        is_low = s <= order // 2
        if _is_good(key, message, r, s if is_low else order - s):
            if is_low:
                return None
            return (
                "HighSSignature",
                "the signature is the key's but high-S, and the protocol only allows the low-S form",
            )
    return "BadSignature", f"the signature is not that of {key.did_key}"


def _is_good(key: PublicKey, message: bytes, r: int, s: int) -> bool:
    der = encode_dss_signature(r, s)
    if key.curve is Curve.K256:
        return coincurve.PublicKey(key.compressed).verify(der, message)
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.compressed)
    try:
        public.verify(der, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
