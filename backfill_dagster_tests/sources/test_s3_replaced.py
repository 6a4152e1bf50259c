"""An object that is replaced while it is read is an error, and never a list of both."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster_tests.aws.proxy import Proxy, Seen
from backfill_dagster_tests.sources.s3_place import Lists, parquet

pytestmark = pytest.mark.usefixtures("no_backoff")

COUNT = 300_000
"""A CSV of so many takes more than one request."""


def body(suffix: str, letter: str, count: int = COUNT) -> bytes:
    dids = [f"did:plc:{letter}{number:023d}" for number in range(count)]
    return parquet(did=dids) if suffix == "parquet" else "\n".join(["did", *dids, ""]).encode()


def at_get(number: int, key: str, act: Callable[[], None]) -> Callable[[Seen], None]:
    """Act before that GET of the object is passed on."""
    seen_before = 0

    def choose(seen: Seen) -> None:
        nonlocal seen_before
        if seen.method == "GET" and seen.path.endswith(key):
            seen_before += 1
            if seen_before == number:
                act()

    return choose


@pytest.mark.parametrize("query", [None, "SELECT did FROM source", "SELECT did FROM source ORDER BY 1"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("count", [COUNT, COUNT + 10, 1000])
def test_while_it_is_read(lists: Lists, proxy: Proxy, suffix: str, query: str | None, count: int) -> None:
    key = f"d/1.{suffix}"
    lists.put({key: body(suffix, "a"), f"d/2.{suffix}": body(suffix, "b", 10)})
    proxy.choose = at_get(2, key, lambda: lists.put({key: body(suffix, "c", count)}))
    text = lists.error("d/", url=proxy.url, query=query)
    assert text == f"{lists.uri(key)} was replaced while it was read: start again"


@pytest.mark.parametrize("query", [None, "SELECT did FROM source"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_deleted_while_it_is_read(lists: Lists, proxy: Proxy, suffix: str, query: str | None) -> None:
    key = f"d/1.{suffix}"
    lists.put({key: body(suffix, "a")})
    client = aws_client("s3", AwsPlace("us-east-1", lists.url))

    def delete() -> None:
        client.delete_object(Bucket=lists.bucket, Key=key)

    proxy.choose = at_get(2, key, delete)
    text = lists.error("d/", url=proxy.url, query=query)
    assert text == f"{lists.uri(key)} has gone since it was listed: start again"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_one_look_more_for_each_object(lists: Lists, proxy: Proxy, suffix: str) -> None:
    lists.put({f"d/{number}.{suffix}": body(suffix, "a", 10) for number in range(5)})
    assert len(lists.texts("d/", url=proxy.url)) == 10
    heads = [seen.path for seen in proxy.seen if seen.method == "HEAD"]
    assert len(heads) == 10  # pyarrow's own when it opens an object, and the one after its last row
