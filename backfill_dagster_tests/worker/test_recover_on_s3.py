"""What the start of a shard asks S3: as much for the thousandth shard as for the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.errors import StateError
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.part_file import part_key, parts_of
from backfill_dagster.store.s3 import S3Store
from backfill_dagster.worker.recover import check_parts, newest_epoch, sweep
from backfill_dagster_tests.aws.proxy import Proxy, proxied

pytestmark = pytest.mark.usefixtures("no_backoff")

SHARD = "pds.example~0000"
TYPES = ("post", "like", None)


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made


@pytest.fixture
def store(proxy: Proxy, bucket: str) -> S3Store:
    return S3Store(bucket, "data", AwsPlace("us-east-1", proxy.url), sleep=lambda _: None)


@pytest.fixture
def beside(moto: str, bucket: str) -> S3Store:
    """The same store, past the proxy."""
    return S3Store(bucket, "data", AwsPlace("us-east-1", moto))


def key_of(shard: str, seq: int, record_type: str | None, *, epoch: int = 1) -> str:
    unique = f"{seq:04x}{(record_type or '').encode().hex()}"
    return part_key(record_type, shard=shard, seq=seq, epoch=epoch, unique=unique)


def filled(store: S3Store, shard: str, parts: int) -> Fold:
    """A shard with so many live parts of each type."""
    live = {}
    for seq in range(1, parts + 1):
        for record_type in TYPES:
            key = key_of(shard, seq, record_type)
            store.put(key, b"rows")
            live[key] = LivePart(Part(key, record_type, 1, 4, ""), seq)
    return Fold(seq=parts, epoch=2, parts=live)


def recovered(store: S3Store, fold: Fold, shard: str = SHARD) -> int:
    published = parts_of(store, shard)
    check_parts(store, fold, shard, published)
    return sweep(store, fold, shard, published)


def test_the_requests_dont_grow(store: S3Store, beside: S3Store, proxy: Proxy) -> None:
    """Neither with the shard's live parts nor with other shards."""
    fold = filled(beside, SHARD, 1)
    assert recovered(store, fold) == 0
    asked = [(seen.method, seen.query.get("prefix")) for seen in proxy.seen]
    proxy.seen.clear()
    fold = filled(beside, SHARD, 12)
    client = aws_client("s3", beside._place)
    for number in range(1, 500):
        for record_type in ("post", "like", None):
            key = beside._at(key_of(f"pds.example~{number:04d}", 1, record_type))
            client.put_object(Bucket=beside._bucket, Key=key, Body=b"1")
    assert recovered(store, fold) == 0
    assert [(seen.method, seen.query.get("prefix")) for seen in proxy.seen] == asked
    assert asked == [
        ("GET", "data/records/"),
        ("GET", f"data/quarantine/{SHARD}-"),
        ("GET", f"data/records/record_type=like/{SHARD}-"),
        ("GET", f"data/records/record_type=post/{SHARD}-"),
        ("GET", "data/"),
    ]


def test_parts_of_types_that_nobody_wants_any_more_are_swept(store: S3Store) -> None:
    fold = filled(store, SHARD, 1)
    dead = [key_of(SHARD, 9, name) for name in ("post", "repost", None)]
    kept = [key_of(SHARD, 9, "repost", epoch=2), key_of(f"{SHARD}0", 9, "post"), key_of(f"{SHARD}-1", 9, "post")]
    for key in (*dead, *kept):
        store.put(key, b"1")
    assert newest_epoch(store, SHARD) == 2
    assert recovered(store, fold) == len(dead)
    assert [key for key in (*dead, *kept) if store.exists(key)] == kept
    assert all(store.exists(path) for path in fold.parts)


@pytest.mark.parametrize("content", [None, b"row"])
def test_a_live_part_that_is_lost_or_cut_short(store: S3Store, content: bytes | None) -> None:
    fold = filled(store, SHARD, 2)
    path = key_of(SHARD, 2, "like")
    store.delete(path)
    if content is not None:
        store.put(path, content)
    with pytest.raises(StateError, match="is missing" if content is None else "has 3 bytes instead of 4"):
        recovered(store, fold)
