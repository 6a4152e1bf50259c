"""Made-up signing keys of both curves: derived from a text, so that the same seed signs the same bytes.

These keys protect nothing. Verifying signatures is `atproto`'s business.
Source: https://atproto.com/specs/cryptography
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from coincurve import PrivateKey
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ORDER = {
    "k256": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
MULTICODEC = {"k256": b"\xe7\x01", "p256": b"\x80\x24"}
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_LEGACY_TYPE = {"k256": "EcdsaSecp256k1VerificationKey2019", "p256": "EcdsaSecp256r1VerificationKey2019"}


def base58(raw: bytes) -> str:
    """Base58btc text (keys never begin with a zero byte, so leading zeros need no care)."""
    number, out = int.from_bytes(raw, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        out = BASE58[rest] + out
    return out


@dataclass(frozen=True)
class SigningKey:
    """A private key: `curve` is k256 or p256, `secret` its number."""

    curve: str
    secret: int

    @classmethod
    def derive(cls, label: str) -> SigningKey:
        """The key of a label; three of four are k256, as k256 is what most accounts have."""
        digest = hashlib.sha256(f"localnet key {label}".encode()).digest()
        curve = "p256" if digest[0] & 3 == 0 else "k256"
        return cls(curve, int.from_bytes(hashlib.sha256(digest).digest(), "big") % (ORDER[curve] - 1) + 1)

    @cached_property
    def _k256(self) -> PrivateKey:
        return PrivateKey.from_int(self.secret)

    @cached_property
    def _p256(self) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(self.secret, ec.SECP256R1())

    def sign(self, message: bytes) -> bytes:
        """ECDSA over sha256 of the message: 64 bytes r||s with the low S, the same every time (RFC 6979)."""
        if self.curve == "k256":
            return self._k256.sign_recoverable(message)[:64]
        der = self._p256.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True))
        r, s = utils.decode_dss_signature(der)
        return r.to_bytes(32, "big") + min(s, ORDER["p256"] - s).to_bytes(32, "big")

    def public_bytes(self, *, compressed: bool = True) -> bytes:
        """The public point, 33 or 65 bytes."""
        if self.curve == "k256":
            return self._k256.public_key.format(compressed=compressed)
        form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
        return self._p256.public_key().public_bytes(Encoding.X962, form)

    @cached_property
    def multikey(self) -> str:
        """The Multikey text `z...` of a DID document."""
        return "z" + base58(MULTICODEC[self.curve] + self.public_bytes())

    @property
    def did_key(self) -> str:
        """The key as did:key."""
        return f"did:key:{self.multikey}"

    @property
    def legacy_form(self) -> tuple[str, str]:
        """Type and `publicKeyMultibase` of the form that DID documents had before Multikey."""
        return _LEGACY_TYPE[self.curve], "z" + base58(self.public_bytes(compressed=False))
