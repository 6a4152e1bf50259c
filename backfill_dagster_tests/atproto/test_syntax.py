"""DIDs, handles, NSIDs, record keys and AT URIs; the protocol's full vectors are in test_interop."""

from __future__ import annotations

import pytest

from backfill_dagster.atproto.at_uri import AtUri, is_at_uri, parse_at_uri
from backfill_dagster.atproto.did import did_method, is_did, is_plc_did
from backfill_dagster.atproto.handle import is_handle
from backfill_dagster.atproto.nsid import is_nsid
from backfill_dagster.atproto.record_key import is_record_key


@pytest.mark.parametrize(
    "text", ["did:plc:7iza6de2dwap2sbkpav7c6c6", "did:web:localhost%3A1234", "did:method:-:_:.:%ab", "did:m:v"]
)
def test_dids(text: str) -> None:
    assert is_did(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did",
        "did:plc",
        "did:plc:",
        "DID:plc:a",
        "did:PLC:a",
        "did:m123:a",
        "did:plc:a:",
        "did:plc:a%",
        "did:plc:a/b",
        "did:plc:a ",
        " did:plc:a",
        "did:plc:a\n",
        "did:plc:ä",
        "did:plc:" + "a" * 2041,
    ],
)
def test_not_dids(text: str) -> None:
    assert not is_did(text)


def test_a_did_of_2048_characters_is_one() -> None:
    assert is_did("did:plc:" + "a" * 2040)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("did:plc:7iza6de2dwap2sbkpav7c6c6", True),
        ("did:plc:7iza6de2dwap2sbkpav7c6c", False),
        ("did:plc:7iza6de2dwap2sbkpav7c6c66", False),
        ("did:plc:7iza6de2dwap2sbkpav7c6c1", False),
        ("did:plc:7IZA6DE2DWAP2SBKPAV7C6C6", False),
        ("did:web:7iza6de2dwap2sbkpav7c6c6", False),
    ],
)
def test_dids_of_plc_that_can_exist(text: str, expected: bool) -> None:
    assert is_plc_did(text) is expected


def test_the_method_of_a_did() -> None:
    assert did_method("did:web:example.com:path") == "web"
    with pytest.raises(ValueError, match=r"'example\.com' is not a DID"):
        did_method("example.com")


@pytest.mark.parametrize(
    "text", ["john.test", "A.ISI.EDU", "xn--ls8h.test", "8.cn", "a." * 125 + "com", "a" * 63 + ".co"]
)
def test_handles(text: str) -> None:
    assert is_handle(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "john",
        "john.",
        ".john.test",
        "john..test",
        "-john.test",
        "john-.test",
        "john.0",
        "jo_hn.test",
        "@john.test",
        "john.test\n",
        "jöhn.test",
        "a" * 64 + ".co",
        "a." * 126 + "com",
    ],
)
def test_not_handles(text: str) -> None:
    assert not is_handle(text)


@pytest.mark.parametrize("text", ["com.example.fooBar", "a.b.c", "cn.8.lex.stuff", "a-0.b-1.c", f"{'a.' * 158}b"])
def test_nsids(text: str) -> None:
    assert is_nsid(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "com.example",
        "com.example.*",
        "com.example.p_st",
        "com.example-.foo",
        "com.example.foo.2",
        "0two.example.foo",
        "one..two.three",
        ".one.two.three",
        "com.example.foo-bar",
        "com.example.foo\n",
        f"com.{'o' * 64}.foo",
        f"com.example.{'o' * 64}",
        f"{'a.' * 158}bc",
    ],
)
def test_not_nsids(text: str) -> None:
    assert not is_nsid(text)


@pytest.mark.parametrize("text", ["self", "3jzfcijpj2z2a", "~1.2-3_", "...", ":", "pre:fix", "o" * 512])
def test_record_keys(text: str) -> None:
    assert is_record_key(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "a#b", "@a", "a%20", "é", "self\n", "o" * 513])
def test_not_record_keys(text: str) -> None:
    assert not is_record_key(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("at://did:plc:abc", AtUri("did:plc:abc")),
        ("at://user.bsky.social/a.b.c", AtUri("user.bsky.social", "a.b.c")),
        ("at://did:plc:abc/a.b.c/self.", AtUri("did:plc:abc", "a.b.c", "self.")),
    ],
)
def test_at_uris(text: str, parts: AtUri) -> None:
    assert parse_at_uri(text) == parts
    assert str(parts) == text
    assert is_at_uri(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "doesn't start with at://"),
        ("AT://did:plc:abc", "doesn't start with at://"),
        ("at://", "neither a DID nor a handle"),
        ("at://name", "neither a DID nor a handle"),
        ("at://did:plc:abc#frag", "neither a DID nor a handle"),
        ("at://did:plc:abc/", "collection is not an NSID"),
        ("at://did:plc:abc/short/a", "collection is not an NSID"),
        ("at://did:plc:abc/a.b.c/", "not a record key"),
        ("at://did:plc:abc/a.b.c/%23", "not a record key"),
        ("at://did:plc:abc/a.b.c/a?b=c", "not a record key"),
        ("at://did:plc:abc/a.b.c/a/", "more than a collection and a record key"),
        ("at://did:plc:abc/a.b.c/" + "o" * 8200, "longer than"),
    ],
)
def test_not_at_uris(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_at_uri(text)
    assert not is_at_uri(text)
