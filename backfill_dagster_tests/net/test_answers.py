"""What headers and common answers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.errors import ServerFaultError
from backfill_dagster.net import Body
from backfill_dagster.net.answers import is_rate_limit, json_object, rate_limited, unexpected_status, xrpc_error
from backfill_dagster.net.evidence import evidence_headers, is_used_up, pause_seconds, reset_seconds
from backfill_dagster.net.gunzip import PIECE_MAX_BYTES, Gunzip
from backfill_dagster_tests.net.servers import gzipped

NOW = 1_800_000_000.0
DATE = "Fri, 15 Jan 2027 08:00:00 GMT"  # NOW


def body(data: bytes = b"", status: int = 400, **headers: str) -> Body:
    lower = {name.replace("_", "-"): value for name, value in headers.items()}
    return Body("http://pds.example/xrpc/x", status, lower, data, len(data))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": " 17 "}, 17.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT"}, 60.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:59:00 GMT"}, None),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT", "date": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"ratelimit-reset": "1800000042"}, 42.0),
        ({"ratelimit-reset": "1799999999"}, None),
        ({"ratelimit-reset": "1800000042", "date": "Fri, 15 Jan 2027 08:00:40 GMT"}, 2.0),
        ({"ratelimit-reset": "42"}, 42.0),
        ({"ratelimit-reset": "x"}, None),
        ({"retry-after": "5", "ratelimit-reset": "1800000042"}, 5.0),
        ({"retry-after": "soon", "ratelimit-reset": "1800000042"}, 42.0),
        ({"retry-after": "5", "date": "nonsense"}, 5.0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert pause_seconds(headers, NOW) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "ratelimit-reset", "ratelimit-remaining", "date"]), st.text()))
def test_no_header_text_makes_the_reading_raise(headers: dict[str, str]) -> None:
    assert (pause_seconds(headers, NOW) or 0) >= 0
    assert (reset_seconds(headers, NOW) or 0) >= 0
    assert is_used_up(headers) in (True, False)
    assert set(evidence_headers(headers)) == set(headers)


def test_evidence_is_few_headers_cut_and_printable() -> None:
    headers = {"server": "x" * 999, "set-cookie": "secret", "via": "a\x1b[31mb", "retry-after": "5"}
    assert evidence_headers(headers) == {"server": "x" * 200, "via": "a?[31mb", "retry-after": "5"}


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b'{"error":"RepoNotFound","message":"Could not find it"}', "RepoNotFound", "Could not find it"),
        (b'{"error":"RepoNotFound"}', "RepoNotFound", ""),
        (b'{"message":"a\\nb\\u001b"}', "", "a b"),
        (b'{"error":7,"message":[]}', "", ""),
        (b'{"error":"two words"}', "", ""),
        (b'{"error":"' + b"x" * 65 + b'"}', "", ""),
        (b"[]", "", ""),
        (b"<html>", "", ""),
        (b"", "", ""),
        (b'{"error":"\xff"}', "", ""),
        (b"[" * 100_000, "", ""),
    ],
)
def test_xrpc_errors(data: bytes, name: str, message: str) -> None:
    found = xrpc_error(body(data))
    assert (found.name, found.message) == (name, message)


def test_a_long_message_is_cut() -> None:
    assert len(xrpc_error(body(b'{"message":"' + b"x" * 5000 + b'"}')).message) == 300


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (body(status=429), True),
        (body(b'{"error":"RateLimitExceeded"}', 400), True),
        (body(b'{"error":"RateLimitExceeded"}', 500), False),
        (body(b'{"error":"RateLimitExceeded"}', 200), False),
        (body(b'{"error":"InvalidRequest"}', 400), False),
        (body(status=503, retry_after="5"), False),
    ],
)
def test_what_is_a_rate_limit(answer: Body, expected: bool) -> None:
    assert is_rate_limit(answer) is expected


def test_a_rate_limit_with_headers() -> None:
    error = rate_limited(body(b"{}", 429, retry_after="12", server="x", date=DATE), NOW)
    assert error.retry_after_seconds == 12.0
    assert (error.http_status, error.headers) == (429, {"retry-after": "12", "server": "x", "date": DATE})
    assert error.body_sha256 == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert str(error) == "http://pds.example/xrpc/x rate-limits (429), asking for 12 s"


def test_a_rate_limit_without_headers() -> None:
    error = rate_limited(body(b"<html>", 429), NOW)
    assert error.retry_after_seconds is None
    assert str(error) == "http://pds.example/xrpc/x rate-limits (429), without saying how long to wait"


def test_json_objects() -> None:
    assert json_object(body(b'{"a":1}')) == {"a": 1}
    for data in (b"[]", b"nonsense", b"", b'{"a":NaN}', b"[" * 100_000):
        with pytest.raises(ServerFaultError) as caught:
            json_object(body(data, 200, server="x"))
        assert caught.value.http_status == 200
        assert caught.value.headers == {"server": "x"}
        assert caught.value.body_sha256 == body(data).sha256


def test_an_unexpected_status_says_what_the_server_said() -> None:
    said = unexpected_status(body(b'{"error":"InvalidRequest","message":"Bad since"}', 400))
    assert str(said) == "http://pds.example/xrpc/x: answers 400 InvalidRequest: Bad since"
    assert str(unexpected_status(body(b"<html>", 502))) == "http://pds.example/xrpc/x: answers 502"


@given(st.binary(max_size=3 * PIECE_MAX_BYTES), st.integers(1, 5000))
def test_gunzip_gives_back_what_was_compressed_in_bounded_pieces(plain: bytes, step: int) -> None:
    compressed = gzipped(plain)
    gunzip = Gunzip()
    pieces = [p for at in range(0, len(compressed), step) for p in gunzip.feed(compressed[at : at + step])]
    assert b"".join(pieces) == plain
    assert all(0 < len(piece) <= PIECE_MAX_BYTES for piece in pieces)
    assert gunzip.is_complete


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_gunzip_of_whole_pieces_leaves_nothing_behind(pieces: int) -> None:
    gunzip = Gunzip()
    assert len(b"".join(gunzip.feed(gzipped(bytes(pieces * PIECE_MAX_BYTES))))) == pieces * PIECE_MAX_BYTES
    assert gunzip.is_complete


@given(st.data())
def test_no_truncation_of_gzip_is_complete(data: st.DataObject) -> None:
    compressed = gzipped(b"some text that is a little longer" * 9)
    gunzip = Gunzip()
    list(gunzip.feed(compressed[: data.draw(st.integers(0, len(compressed) - 1))]))
    assert not gunzip.is_complete
