"""What can go wrong with a list on S3: one line each, with bucket, key and remedy."""

from __future__ import annotations

import gzip
import re

import pytest

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.aws.clients import _client
from backfill_dagster.sources.s3 import S3Source
from backfill_dagster_tests.aws.proxy import Proxy, Trouble
from backfill_dagster_tests.sources.s3_place import Lists, error_of, parquet

pytestmark = pytest.mark.usefixtures("no_backoff")

GOOD = parquet(did=[f"did:plc:{number:024d}" for number in range(30_000)])


@pytest.mark.parametrize(
    ("objects", "key", "said"),
    [
        ({"a.csv": "x,y\n1,2\n"}, "a.csv", "{} has no column 'did'; columns found: x, y; set source.column"),
        ({"a.csv": "did\n"}, "a.dat", "{} is not there: correct source.path"),
        (
            {"a.dat": "did\n"},
            "a.dat",
            "{} has none of the suffixes .csv, .csv.gz, .tsv and .parquet: set source.format",
        ),
        ({"a.parquet.gz": b""}, "a.parquet.gz", "{} has none of the suffixes"),
        ({"a.csv": ""}, "a.csv", "{} is empty: a CSV file needs at least its header line"),
        ({"a.csv": "did:plc:a\n"}, "a.csv", "{}: the first line is data, not a header (did:plc:a); set source.header"),
        ({"a.csv": 'did\n"did:plc:a\n'}, "a.csv", "{}, line 2: not CSV as of RFC 4180 (unexpected end of data)"),
        ({"a.csv": "did\n" + "x" * (1024 * 1024 + 1)}, "a.csv", "{}, line 2 is longer than 1048576 characters"),
        ({"a.csv": GOOD}, "a.csv", "{} is a Parquet file: set source.format: parquet"),
        ({"a.csv.gz": gzip.compress(b"did\n" + b"a\n" * 9)[:-9]}, "a.csv.gz", "{} is damaged or cut short ("),
        ({"a.parquet": "did\nx\n"}, "a.parquet", "{} can't be read as Parquet ("),
        ({"a.parquet": GOOD[:-100]}, "a.parquet", "{} can't be read as Parquet ("),
        ({"a.parquet": parquet(did=[["x"]])}, "a.parquet", "{}, column 'did' holds list<"),
        ({"a//b.csv": "did\nx\n"}, "a//b.csv", "{} has an empty part in its key, which can't be read"),
    ],
)
def test_content(lists: Lists, objects: dict[str, bytes | str], key: str, said: str) -> None:
    lists.put(objects)
    assert lists.error(key).startswith(said.replace("{}", lists.uri(key)))


def test_a_damaged_page_is_an_error(lists: Lists) -> None:
    data = bytearray(GOOD)
    data[100:2000] = b"\xaa" * 1900
    lists.put({"a.parquet": bytes(data)})
    text = lists.error("a.parquet")
    assert lists.uri("a.parquet") in text
    assert text.endswith(": write it again")
    text = lists.error("a.parquet", query="FROM source")
    assert text.startswith(f"source.query for {lists.uri('a.parquet')} fails: ")
    assert "or the object if it is damaged" in text


def test_one_bad_object_among_many_is_named(lists: Lists) -> None:
    lists.put({"d/1.csv": "did\na\n", "d/2.csv": "dids,x\nb,1\n"})
    assert lists.error("d/") == f"{lists.uri('d/2.csv')} has no column 'did'; columns found: dids, x; set source.column"


def test_mixed_formats(lists: Lists) -> None:
    lists.put({"d/1.csv": "did\na\n", "d/2.parquet": GOOD})
    assert lists.error("d/") == (
        f"{lists.uri('d/')} names objects of different formats, csv ({lists.uri('d/1.csv')}) and parquet "
        f"({lists.uri('d/2.parquet')}): narrow it with a glob (*.parquet)"
    )
    lists.put({"e/1.csv": "did\na\n", "e/README.md": "x"})
    assert lists.error("e/").startswith(f"{lists.uri('e/README.md')} has none of the suffixes")


@pytest.mark.parametrize("key", ["a.csv", "d/", "d/*.csv"])
def test_no_bucket(moto: str, aws_environ: None, key: str) -> None:
    text = error_of(S3Source(f"s3://no-such-bucket/{key}", AwsPlace("us-east-1", moto)))
    assert text.startswith(f"can't look at s3://no-such-bucket/{key}: NoSuchBucket: ")
    assert text.endswith("; create the bucket, or correct its name")


@pytest.mark.parametrize("key", ["a.csv", "d/"])
def test_denied(lists: Lists, proxy: Proxy, key: str) -> None:
    proxy.choose = lambda seen: Trouble.DENIED
    text = lists.error(key, url=proxy.url)
    assert text.startswith(f"can't look at {lists.uri(key)}: AccessDenied: User is not authorized to perform this; ")
    assert "deploy/aws/ has a policy" in text


@pytest.mark.parametrize("key", ["a.csv", "d/"])
def test_expired(lists: Lists, proxy: Proxy, key: str) -> None:
    proxy.choose = lambda seen: Trouble.EXPIRED
    assert lists.error(key, url=proxy.url) == (
        f"can't look at {lists.uri(key)}: ExpiredToken: The provided token has expired; "
        "the credentials have expired: log in again"
    )


@pytest.mark.parametrize("options", [{}, {"query": "FROM source"}], ids=["rows", "query"])
@pytest.mark.parametrize("key", ["a.csv", "a.parquet"])
def test_denied_to_read_what_can_be_listed(lists: Lists, proxy: Proxy, key: str, options: dict[str, str]) -> None:
    lists.put({f"d/{key}": GOOD if key.endswith("parquet") else "did\na\n"})
    proxy.choose = lambda seen: Trouble.DENIED if seen.path.endswith(key) else None
    text = lists.error("d/", url=proxy.url, **options)
    said = "AccessDenied: User is not authorized to perform this; deploy/aws/ has a policy"
    assert text.startswith(f"can't read {lists.uri('d/' + key)}: {said}")
    assert "deploy/aws/ has a policy" in text


def test_gone_since_it_was_listed(lists: Lists, proxy: Proxy) -> None:
    lists.put({"d/a.csv": "did\na\n"})

    def choose(seen: object) -> Trouble | None:
        client = aws_client("s3", AwsPlace("us-east-1", lists.url))
        if getattr(seen, "method", "") == "HEAD":
            client.delete_object(Bucket=lists.bucket, Key="d/a.csv")
        return None

    proxy.choose = choose
    assert lists.error("d/", url=proxy.url) == f"{lists.uri('d/a.csv')} has gone since it was listed: start again"


def test_no_credentials(lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    _client.cache_clear()
    try:
        text = lists.error("a.csv")
    finally:
        _client.cache_clear()
    assert text.startswith(f"can't look at {lists.uri('a.csv')}: Unable to locate credentials; see AWS_ACCESS_KEY_ID")


def test_no_endpoint(aws_environ: None) -> None:
    text = error_of(S3Source("s3://bucket/a.csv", AwsPlace("us-east-1", "http://127.0.0.1:9")))
    assert re.fullmatch(
        r"can't look at s3://bucket/a\.csv: Could not connect to the endpoint URL: .*; "
        r"see that the endpoint is right and can be reached from here, then start again",
        text,
    )
