"""Objects that may be looked at and not read: the service's own words, whatever pyarrow makes of them."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from backfill_dagster.aws import AwsPlace
from backfill_dagster.errors import StateError
from backfill_dagster.store.s3 import S3Store
from backfill_dagster_tests.aws.proxy import Choose, Proxy, Seen, Trouble, proxied
from backfill_dagster_tests.sources.s3_place import Lists, parquet

pytestmark = pytest.mark.usefixtures("no_backoff")

OBJECTS = {
    "big.parquet": parquet(did=[f"did:plc:{number:024d}" for number in range(30_000)]),
    "small.parquet": parquet(did=["did:plc:a"]),
    "tiny": b"x",
}

SAID = {
    Trouble.ARCHIVED: "InvalidObjectState: The operation is not valid for the object's storage class; the object is "
    "archived: restore it first",
    Trouble.DENIED: "AccessDenied: User is not authorized to perform this; deploy/aws/ has a policy",
    Trouble.EXPIRED: "ExpiredToken: The provided token has expired; the credentials have expired: log in again",
    Trouble.KEY_DISABLED: "KMS.DisabledException: arn:aws:kms:eu-west-3:123456789012:key/k is disabled; the key that",
    Trouble.GONE: "NoSuchKey: The specified key does not exist; see that the object is there",
    Trouble.WRONG_SIGNATURE: "SignatureDoesNotMatch: The request signature we calculated does not match; the secret",
}


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made


@pytest.fixture
def store(moto: str, bucket: str, proxy: Proxy) -> S3Store:
    """One with the objects, reached through the proxy."""
    Lists(bucket, moto).put({f"data/{key}": body for key, body in OBJECTS.items()})
    return S3Store(bucket, "data", AwsPlace("us-east-1", proxy.url))


def refusing(trouble: Trouble) -> Choose:
    """HEAD passes, and so do listings."""
    return lambda seen: trouble if is_read(seen) else None


def is_read(seen: Seen) -> bool:
    return seen.method == "GET" and "list-type" not in seen.query


@pytest.mark.parametrize("trouble", SAID)
@pytest.mark.parametrize("length", [1, 8, 1 << 20])
@pytest.mark.parametrize("key", OBJECTS)
def test_what_is_opened(store: S3Store, proxy: Proxy, trouble: Trouble, length: int, key: str) -> None:
    """An error's text fits in no buffer of a few bytes."""
    file = store.open_input(key)
    proxy.choose = refusing(trouble)
    with pytest.raises(OSError, match="AWS Error") as caught:
        file.read_at(length, 0)
    assert str(store.read_problem(caught.value, key)).startswith(f"can't read {store.path(key)}: {SAID[trouble]}")


@pytest.mark.parametrize("trouble", SAID)
@pytest.mark.parametrize("key", ["big.parquet", "small.parquet"])
def test_what_duckdb_reads(store: S3Store, proxy: Proxy, trouble: Trouble, key: str) -> None:
    """DuckDB doesn't say which object it was; the file does."""
    proxy.choose = refusing(trouble)
    with duckdb.connect() as database:
        database.register_filesystem(store.duckdb_filesystem())
        with pytest.raises(duckdb.Error) as caught:
            database.sql(f"FROM '{store.path(key)}'").fetchall()
    problem = store.read_problem(caught.value, "records")
    assert isinstance(problem, StateError)
    assert str(problem).startswith(f"can't read {store.path(key)}: {SAID[trouble]}")


def test_the_words_are_asked_for_once(store: S3Store, proxy: Proxy) -> None:
    file = store.open_input("tiny")
    proxy.choose = refusing(Trouble.DENIED)
    with pytest.raises(OSError, match="INTERNAL_FAILURE") as caught:
        file.read_at(1, 0)
    before = len(proxy.seen)
    store.read_problem(caught.value, "tiny")
    assert len(proxy.seen) == before + 1


def test_words_that_are_there_are_not_asked_for(store: S3Store, proxy: Proxy) -> None:
    error = OSError("AWS Error ACCESS_DENIED during GetObject operation: User is not authorized.")
    assert "AccessDenied: User is not authorized; " in str(store.read_problem(error, "tiny"))
    assert proxy.seen == []


def test_a_trouble_that_has_passed(store: S3Store) -> None:
    """Nothing else is known than what pyarrow says."""
    error = OSError("AWS Error INTERNAL_FAILURE during GetObject operation: Failed to flush response stream")
    said = str(store.read_problem(error, "tiny"))
    assert said.startswith(f"can't read {store.path('tiny')}: INTERNAL_FAILURE: Failed to flush response stream; ")
    empty = OSError("AWS Error ACCESS_DENIED during GetObject operation: ")
    assert "AccessDenied; deploy/aws/" in str(store.read_problem(empty, "tiny"))


def test_what_is_no_error_of_s3_is_none(store: S3Store, proxy: Proxy) -> None:
    assert store.read_problem(OSError("Couldn't deserialize thrift"), "tiny") is None
    assert proxy.seen == []


@pytest.mark.parametrize("options", [{}, {"query": "FROM source"}], ids=["rows", "query"])
@pytest.mark.parametrize("trouble", [Trouble.ARCHIVED, Trouble.DENIED, Trouble.EXPIRED, Trouble.KEY_DISABLED])
def test_a_list_that_may_not_be_read_is_not_damaged(
    moto: str, bucket: str, proxy: Proxy, trouble: Trouble, options: dict[str, str]
) -> None:
    lists = Lists(bucket, moto)
    lists.put({"a.parquet": OBJECTS["small.parquet"], "a.csv": "did\na\n"})
    proxy.choose = refusing(trouble)
    for key in ("a.parquet", "a.csv"):
        said = lists.error(key, url=proxy.url, **options)
        assert said.startswith(f"can't read {lists.uri(key)}: ")
        assert "damaged" not in said
