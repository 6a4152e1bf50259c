"""409: another conditional write on the key is under way. The store waits longer and longer, half a minute in all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backfill_dagster.aws import AwsError, AwsPlace, aws_client
from backfill_dagster.errors import StateError
from backfill_dagster.store.s3 import S3Store
from backfill_dagster.store.s3_conflict import WAITS
from backfill_dagster_tests.aws.proxy import Proxy, Seen, Trouble, proxied
from backfill_dagster_tests.store.test_s3 import PART, PIECE

pytestmark = pytest.mark.usefixtures("no_backoff")

ENTRY = "log/a~0000/00000001.json"

SIZES = pytest.mark.parametrize("size", [3, PIECE + 1], ids=["one PUT", "in pieces"])


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made


@pytest.fixture
def waits() -> list[float]:
    """How long the store has waited."""
    return []


@pytest.fixture
def store(proxy: Proxy, bucket: str, waits: list[float]) -> S3Store:
    place = AwsPlace("us-east-1", proxy.url)
    return S3Store(bucket, "data", place, piece_bytes=PIECE, sleep=waits.append)


def creates(seen: Seen) -> bool:
    """Whether the request is the one that makes an object, whole or out of its pieces."""
    if seen.method == "POST":
        return "uploadId" in seen.query
    return seen.method == "PUT" and "partNumber" not in seen.query


def troubles(*kinds: Trouble, when: Callable[[Seen], bool] = creates) -> Callable[[Seen], Trouble | None]:
    left = list(reversed(kinds))
    return lambda seen: left.pop() if left and when(seen) else None


def staged(store: S3Store, data: bytes) -> None:
    with store.stage(PART) as file:
        file.write(data)


def test_the_waits_grow_to_half_a_minute() -> None:
    assert list(WAITS) == sorted(WAITS)
    assert 29 < sum(WAITS) < 35


@pytest.mark.parametrize("times", [1, len(WAITS)])
def test_an_object_after_conflicts(store: S3Store, proxy: Proxy, waits: list[float], times: int) -> None:
    proxy.choose = troubles(*[Trouble.CONFLICT] * times)
    assert store.put_if_absent(ENTRY, b"one") is True
    assert waits == list(WAITS[:times])
    assert store.get(ENTRY) == b"one"


@SIZES
@pytest.mark.parametrize("times", [1, 3])
def test_a_part_after_conflicts(store: S3Store, proxy: Proxy, waits: list[float], size: int, times: int) -> None:
    proxy.choose = troubles(*[Trouble.CONFLICT] * times)
    staged(store, b"x" * size)
    assert waits == list(WAITS[:times])
    assert store.get(PART) == b"x" * size
    assert store.staged() == []


def test_conflicts_for_ever(store: S3Store, proxy: Proxy, waits: list[float]) -> None:
    """Whether the other write was one's own, nobody knows."""
    proxy.choose = lambda seen: Trouble.CONFLICT if creates(seen) else None
    with pytest.raises(AwsError, match=r"can't create s3://.*00000001\.json: ConditionalRequestConflict") as caught:
        store.put_if_absent(ENTRY, b"one")
    assert caught.value.may_have_happened
    with pytest.raises(AwsError, match=r"can't write s3://.*x\.parquet: ConditionalRequestConflict"):
        staged(store, b"x")
    assert waits == [*WAITS, *WAITS]


def test_a_refusal_after_a_conflict_says_nothing_of_the_other_write(store: S3Store, proxy: Proxy) -> None:
    proxy.choose = troubles(Trouble.CONFLICT, Trouble.DENIED)
    with pytest.raises(AwsError, match="AccessDenied") as caught:
        store.put_if_absent(ENTRY, b"one")
    assert caught.value.may_have_happened


@SIZES
def test_a_conflict_with_ones_own_lost_try(store: S3Store, proxy: Proxy, size: int) -> None:
    proxy.choose = troubles(Trouble.LOST_REPLY, Trouble.CONFLICT)
    staged(store, b"x" * size)
    assert store.get(PART) == b"x" * size
    assert store.staged() == []


@SIZES
def test_a_key_that_was_taken_and_is_free_again(store: S3Store, proxy: Proxy, moto: str, size: int) -> None:
    """Between the refusal and the look somebody deletes what was there."""
    store.put(PART, b"another's")
    direct = aws_client("s3", AwsPlace("us-east-1", moto))

    def choose(seen: Seen) -> Trouble | None:
        if seen.method == "HEAD":
            direct.delete_object(Bucket=store._bucket, Key=store._at(PART))
        return None

    proxy.choose = choose
    staged(store, b"x" * size)
    assert store.get(PART) == b"x" * size


def test_taken_and_never_there(store: S3Store, proxy: Proxy, moto: str, waits: list[float]) -> None:
    store.put(PART, b"another's")
    proxy.choose = lambda seen: None
    direct = aws_client("s3", AwsPlace("us-east-1", moto))

    def choose(seen: Seen) -> Trouble | None:
        change = direct.delete_object if seen.method == "HEAD" else direct.put_object
        change(Bucket=store._bucket, Key=store._at(PART))
        return None

    proxy.choose = choose
    with pytest.raises(StateError, match="PreconditionFailed"):
        staged(store, b"x")
    assert waits == list(WAITS)
