"""CIDs."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.cid import (
    DAG_CBOR_CID_PREFIX,
    RAW_CID_PREFIX,
    cid_bytes,
    cid_of,
    cid_text,
    is_cid_text,
)

TEXT = "bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"


def test_prefixes() -> None:
    assert (DAG_CBOR_CID_PREFIX.hex(), RAW_CID_PREFIX.hex()) == ("01711220", "01551220")


def test_the_cid_of_a_block() -> None:
    # the empty map, a value known from everywhere
    assert cid_text(cid_of(b"\xa0")) == "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"


@given(st.binary(min_size=32, max_size=32), st.sampled_from([DAG_CBOR_CID_PREFIX, RAW_CID_PREFIX]))
def test_text_and_bytes_agree(digest: bytes, prefix: bytes) -> None:
    cid = prefix + digest
    text = cid_text(cid)
    assert text == "b" + base64.b32encode(cid).decode().lower().rstrip("=")
    assert cid_bytes(text) == cid
    assert is_cid_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "b",
        TEXT[:-1],
        TEXT + "a",
        TEXT.upper(),
        TEXT[:-1] + "r",
        TEXT[:-1] + "1",
        "é" * 59,
        "b" + "é" * 58,
        "zdpuAyvkgEDQm9TenwGkd5eNaosSxjgEYd8QatfPetgB1CdEZ",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR",
    ],
)
def test_texts_that_are_no_link(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a base32 CID|multibase"):
        cid_bytes(text)


@pytest.mark.parametrize("text", ["zdj7WWeQ43G6JJvLWQWZpyHuAMq6uYWRjkBXFad11vE2LHhQ7", "mBcDxtdWx0aWhhc2g+", TEXT])
def test_loose_syntax(text: str) -> None:
    assert is_cid_text(text)


@pytest.mark.parametrize(
    "text", ["", "noop", "example.com", f" {TEXT}", f"{TEXT}\n", "b" * 257, "QmbWqxBEKC3P8tqsKc98x"]
)
def test_not_even_loose_syntax(text: str) -> None:
    assert not is_cid_text(text)
