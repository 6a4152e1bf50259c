"""Public keys in their text forms, and signatures."""

from __future__ import annotations

import coincurve
import libipld
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.keys import (
    Curve,
    PublicKey,
    check_signature,
    parse_did_key,
    parse_legacy_key,
    parse_multikey,
)
from backfill_dagster.errors import InvalidSignatureError
from backfill_dagster_tests.atproto.build_repo import (
    K256_ORDER,
    P256_ORDER,
    K256Signer,
    P256Signer,
    Signer,
    flip_s,
)

K256 = K256Signer(0x9085D2BEF69286A6CBB51623C8FA258629945CD55CA705CC4E66700396894E0C)
P256 = P256Signer(1)
MESSAGE = b"what was signed"
BOTH = pytest.mark.parametrize(("signer", "order"), [(K256, K256_ORDER), (P256, P256_ORDER)], ids=["k256", "p256"])


def _uncompressed(key: PublicKey) -> bytes:
    if key.curve is Curve.K256:
        return coincurve.PublicKey(key.compressed).format(compressed=False)
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.compressed)
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _z(data: bytes) -> str:
    return str(libipld.encode_multibase("z", data))


def test_a_known_key() -> None:
    assert K256.public.did_key == "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"
    assert P256.public.did_key.startswith("did:key:zDnae")


@BOTH
def test_all_forms_give_one_key(signer: Signer, order: int) -> None:
    key = signer.public
    legacy = {Curve.K256: "EcdsaSecp256k1VerificationKey2019", Curve.P256: "EcdsaSecp256r1VerificationKey2019"}
    assert parse_did_key(key.did_key) == key
    assert parse_multikey(key.did_key.removeprefix("did:key:")) == key
    assert parse_legacy_key(legacy[key.curve], _z(key.compressed)) == key
    assert parse_legacy_key(legacy[key.curve], _z(_uncompressed(key))) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:key:",
        "did:key:zzz",
        "did:key:Q3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
        "did:key:z0OIl",
        "did:key:z" + "1" * 300,
        "did:plc:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
        "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",  # ed25519
        "did:key:" + _z(b"\xe7\x01" + _uncompressed(K256.public)),  # a Multikey is compressed
        "did:key:" + _z(b"\xe7\x01\x02" + b"\xff" * 32),  # no point of the curve
        "did:key:" + _z(b"\x80\x24\x02" + b"\xff" * 32),
        "did:key:" + _z(b"\xe7\x01\x05" + K256.public.compressed[1:]),
    ],
)
def test_not_did_keys(text: str) -> None:
    with pytest.raises(ValueError):
        parse_did_key(text)


@pytest.mark.parametrize(
    ("key_type", "point"),
    [
        ("Ed25519VerificationKey2020", K256.public.compressed),
        ("EcdsaSecp256k1VerificationKey2019", K256.public.compressed[1:]),
        ("EcdsaSecp256k1VerificationKey2019", b"\x06" + _uncompressed(K256.public)[1:]),
        ("EcdsaSecp256k1VerificationKey2019", b"\x07" + _uncompressed(K256.public)[1:]),
        ("EcdsaSecp256k1VerificationKey2019", _uncompressed(P256.public)),
        ("EcdsaSecp256r1VerificationKey2019", _uncompressed(K256.public)),
        ("EcdsaSecp256r1VerificationKey2019", b""),
    ],
)
def test_not_legacy_keys(key_type: str, point: bytes) -> None:
    with pytest.raises(ValueError):
        parse_legacy_key(key_type, _z(point))


@BOTH
def test_a_good_signature(signer: Signer, order: int) -> None:
    signature = signer.sign(MESSAGE)
    assert signer.public.verify(MESSAGE, signature)
    check_signature(signer.public, MESSAGE, signature)


@BOTH
def test_the_high_s_form_is_refused_by_name(signer: Signer, order: int) -> None:
    signature = flip_s(signer.sign(MESSAGE), order)
    assert not signer.public.verify(MESSAGE, signature)
    with pytest.raises(InvalidSignatureError, match="high-S") as caught:
        check_signature(signer.public, MESSAGE, signature)
    assert caught.value.error_code == "HighSSignature"


@BOTH
def test_a_wrong_message_or_key_is_no_high_s(signer: Signer, order: int) -> None:
    signature = flip_s(signer.sign(MESSAGE), order)
    for key, message in [(signer.public, b"another"), (type(signer)(99).public, MESSAGE)]:  # type: ignore[call-arg]
        with pytest.raises(InvalidSignatureError, match="not that of did:key:z") as caught:
            check_signature(key, message, signature)
        assert caught.value.error_code == "BadSignature"


@BOTH
def test_values_out_of_range(signer: Signer, order: int) -> None:
    good = signer.sign(MESSAGE)
    top = order.to_bytes(32, "big")
    for signature in (bytes(64), good[:32] + bytes(32), bytes(32) + good[32:], good[:32] + top, top + good[32:]):
        assert not signer.public.verify(MESSAGE, signature)


@BOTH
def test_a_signature_of_another_length(signer: Signer, order: int) -> None:
    good = signer.sign(MESSAGE)
    der = encode_dss_signature(int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big"))
    for signature in (der, b"", good[:-1], good + b"\x00"):
        with pytest.raises(InvalidSignatureError, match=f"this one has {len(signature)}"):
            check_signature(signer.public, MESSAGE, signature)


@given(st.binary(min_size=64, max_size=64), st.binary(max_size=100))
def test_random_signatures_are_refused_without_a_crash(signature: bytes, message: bytes) -> None:
    assert not K256.public.verify(message, signature)
    assert not P256.public.verify(message, signature)
