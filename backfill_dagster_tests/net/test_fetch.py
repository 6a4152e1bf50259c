"""One GET against servers that behave, misbehave and attack."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import mmap
from collections.abc import Callable, Mapping

import pytest

from backfill_dagster.errors import (
    BackfillError,
    NetworkError,
    ServerFaultError,
    StateError,
    TimedOutError,
    TooLargeError,
)
from backfill_dagster.net import get, open_session
from backfill_dagster_tests.net.fetching import MIB, fetch, limits
from backfill_dagster_tests.net.servers import answer, gzipped, raw_server


async def test_a_plain_body_comes_back_with_lower_case_headers() -> None:
    body = await fetch(answer(b"hello", "Content-Type: Text/Plain; charset=x", "X-A: 1", "X-A: 2"))
    assert (body.status, body.data, body.bytes_on_wire) == (200, b"hello", 5)
    assert body.headers["x-a"] == "1, 2"
    assert body.content_type == "text/plain"
    assert body.url.endswith("/a")
    assert body.sha256 == hashlib.sha256(b"hello").hexdigest()


async def test_chunked_bodies_come_back_whole() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert (await fetch(raw)).data == b"abcde"


async def test_a_204_has_no_body() -> None:
    assert (await fetch(answer(status="204 No Content", content_length=-1))).data == b""


async def test_a_gzip_body_is_decompressed() -> None:
    plain = b"hello " * 100_000
    compressed = gzipped(plain)
    body = await fetch(answer(compressed, "Content-Encoding: gzip"))
    assert body.data == plain
    assert body.bytes_on_wire == len(compressed)


async def test_an_empty_body_that_claims_gzip_is_empty() -> None:
    assert (await fetch(answer(b"", "Content-Encoding: gzip"))).data == b""


async def test_gzip_frames_a_body_that_ends_with_the_connection() -> None:
    raw = answer(gzipped(b"abc"), "Content-Encoding: x-gzip", content_length=-1)
    assert (await fetch(raw)).data == b"abc"


async def test_on_answer_hears_status_and_headers_before_the_body() -> None:
    heard: list[tuple[int, str]] = []
    has_heard = asyncio.Event()

    def listen(status: int, headers: Mapping[str, str]) -> None:
        heard.append((status, headers["x-a"]))
        has_heard.set()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"abc", "X-A: 1")[:-3])
        await has_heard.wait()
        writer.write(b"abc")

    async with raw_server(script) as server, open_session(allow_private_hosts=True) as session:
        body = await get(session, server.url, max_bytes=10, on_answer=listen)
    assert (body.data, heard) == (b"abc", [(200, "1")])


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        answer(b"abc", content_length=5),
        answer(b"abc", content_length=-1),
        answer(b"abc", content_length=-1, version="1.0"),
        answer(gzipped(b"abc" * 99)[:-1], "Content-Encoding: gzip"),
        answer(gzipped(b"abc" * 99)[:-8], "Content-Encoding: gzip", content_length=-1),
        answer(gzipped(b"abc" * 99)[:12], "Content-Encoding: gzip"),
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
    ],
)
async def test_truncated_bodies_are_network_errors(raw: bytes) -> None:
    with pytest.raises(NetworkError):
        await fetch(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        answer(b"x" * 20, "Content-Encoding: gzip"),
        answer(gzipped(b"abc") + b"more", "Content-Encoding: gzip"),
        answer(gzipped(b"abc") + gzipped(b"def"), "Content-Encoding: gzip"),
        answer(gzipped(b"abc")[:-8] + b"\0" * 8, "Content-Encoding: gzip"),
        answer(b"abc", "Content-Encoding: br"),
        answer(b"abc", "Content-Encoding: gzip, gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
)
async def test_answers_that_make_no_sense_are_server_faults(raw: bytes) -> None:
    with pytest.raises(ServerFaultError):
        await fetch(raw)


async def test_a_reset_inside_the_body_is_a_network_error() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"x" * 10, content_length=1000))
        await writer.drain()
        writer.transport.abort()

    with pytest.raises(NetworkError):
        await fetch(script)


async def test_endless_headers_are_a_server_fault() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            writer.write(b"X-%d: %s\r\n" % (number, b"y" * 100))
            await writer.drain()

    with pytest.raises(ServerFaultError, match="breaks HTTP"):
        await fetch(script)


async def test_an_endless_header_line_is_a_server_fault() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-A: ")
        for _ in range(10_000):
            writer.write(b"y" * 1000)
            await writer.drain()

    with pytest.raises(ServerFaultError, match="breaks HTTP"):
        await fetch(script)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 X", "304 Not Modified"])
async def test_redirects_are_not_followed(status: str) -> None:
    async with raw_server(answer(b"private")) as other:
        with pytest.raises(ServerFaultError, match="redirects elsewhere") as caught:
            await fetch(answer(b"", f"Location: {other.url}/", status=status))
        assert other.requests == []
    assert caught.value.http_status == int(status[:3])
    assert caught.value.headers["location"] == f"{other.url}/"


@pytest.mark.parametrize(
    ("raw", "max_bytes"),
    [
        (answer(b"x" * 101), 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 101 + b"0\r\n\r\n", 100),
        (answer(gzipped(b"x" * 100_000), "Content-Encoding: gzip"), 99_999),
    ],
)
async def test_bodies_over_the_bound_are_too_large(raw: bytes, max_bytes: int) -> None:
    with pytest.raises(TooLargeError, match=f"larger than {max_bytes} bytes") as caught:
        await fetch(raw, max_bytes=max_bytes)
    assert (caught.value.error_code, caught.value.http_status) == ("TooLarge", 200)


async def test_a_body_of_exactly_the_bound_is_fine() -> None:
    assert len((await fetch(answer(b"x" * 100), max_bytes=100)).data) == 100
    compressed = answer(gzipped(b"x" * 100_000), "Content-Encoding: gzip")
    assert len((await fetch(compressed, max_bytes=100_000)).data) == 100_000


async def test_an_announced_length_over_the_bound_is_not_downloaded() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"x", content_length=10**12))
        await asyncio.sleep(60)

    with pytest.raises(TooLargeError):
        await fetch(script, max_bytes=100)


async def test_a_gzip_bomb_is_stopped_early_and_never_holds_the_loop() -> None:
    bomb = gzipped(bytes(64 * MIB))
    assert len(bomb) < 100_000
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count())
    with pytest.raises(TooLargeError):
        await fetch(answer(bomb, "Content-Encoding: gzip"), max_bytes=40 * MIB)
    counter.cancel()
    assert turns >= 40 * MIB // (8 * 256 * 1024)


async def test_silence_before_the_headers_times_out() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    with pytest.raises(TimedOutError, match="first_byte_seconds"):
        await fetch(script, timeouts=limits(connect_seconds=0.05, first_byte_seconds=0.05))


async def test_a_flood_of_early_hints_times_out() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.005)

    with pytest.raises(TimedOutError, match="first_byte_seconds"):
        await fetch(script, timeouts=limits(connect_seconds=0.05, first_byte_seconds=0.05))


async def test_silence_inside_the_body_times_out() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"x", content_length=100))
        await asyncio.sleep(60)

    with pytest.raises(TimedOutError, match="idle_seconds") as caught:
        await fetch(script, timeouts=limits(idle_seconds=0.05))
    assert caught.value.http_status == 200


async def test_a_drip_times_out_by_the_total() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(content_length=100_000))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    with pytest.raises(TimedOutError, match="total_seconds"):
        await fetch(script, timeouts=limits(total_seconds=0.15))


async def test_cancellation_goes_through() -> None:
    started = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(fetch(script))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_error_answers_keep_their_beginning() -> None:
    body = await fetch(answer(b"x" * 200_000, status="500 Oops"), max_bytes=10)
    assert body.status == 500
    assert bytes(body.data) == b"x" * len(body.data)
    assert 0 < len(body.data) <= 64 * 1024


async def test_an_error_answer_is_cut_after_decompression_too() -> None:
    body = await fetch(answer(gzipped(bytes(MIB)), "Content-Encoding: gzip", status="502 Bad"))
    assert (body.status, len(body.data)) == (502, 64 * 1024)


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (answer(b"abc", status="404 Not Found"), b"abc"),
        (answer(b"abc", status="404 Not Found", content_length=10), b"abc"),
        (answer(b"abc", status="404 Not Found", content_length=-1), b"abc"),
        (answer(b"abc", "Content-Encoding: br", status="404 Not Found"), b""),
        (answer(b"abc", "Content-Encoding: gzip", status="404 Not Found"), b""),
    ],
)
async def test_a_broken_error_body_does_not_hide_the_status(raw: bytes, data: bytes) -> None:
    body = await fetch(raw)
    assert (body.status, body.data) == (404, data)


async def test_a_silent_error_body_does_not_hide_the_status() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"abc", status="503 Busy", content_length=10))
        await asyncio.sleep(60)

    body = await fetch(script, timeouts=limits(idle_seconds=0.05))
    assert (body.status, body.data) == (503, b"abc")


async def test_large_bodies_are_mapped_files() -> None:
    plain = bytes(range(256)) * 1000
    with await fetch(answer(plain), spool_over_bytes=1000) as body:
        assert isinstance(body.data, mmap.mmap)
        assert bytes(body.data) == plain
        assert body.sha256 == hashlib.sha256(plain).hexdigest()
        view = memoryview(body.data)
        body.close()  # a view is alive: the mapping stays
        assert view[:4] == plain[:4]
        view.release()
    assert body.data.closed


async def test_a_body_of_the_spool_size_stays_in_memory() -> None:
    assert (await fetch(answer(b"x" * 1000), spool_over_bytes=1000)).data == b"x" * 1000


@pytest.mark.parametrize("where", ["TemporaryFile", "mmap"])
async def test_no_room_for_a_large_body_names_the_remedy(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*args: object, **kwargs: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = "tempfile.TemporaryFile" if where == "TemporaryFile" else "mmap.mmap"
    monkeypatch.setattr(f"backfill_dagster.net.body.{target}", full)
    with pytest.raises(StateError, match=r"No space left on device.*TMPDIR"):
        await fetch(answer(b"x" * 1000), spool_over_bytes=10)


async def test_every_error_is_one_printable_line() -> None:
    scripts: list[Callable[[], bytes]] = [
        lambda: b"not\r\nhttp \x00\x1b[31m\r\n\r\n",
        lambda: answer(b"x", "Content-Encoding: \x1b[31m" + "z" * 100),
        lambda: answer(b"x", "Transfer-Encoding: " + "z" * 100),
    ]
    for script in scripts:
        with pytest.raises(BackfillError) as caught:
            await fetch(script())
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
