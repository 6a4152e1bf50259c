"""The store on S3, against a server over HTTP; with a proxy between where something has to go wrong."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backfill_dagster.aws import AwsError, AwsPlace, aws_client
from backfill_dagster.aws.arrow import ArrowS3
from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.store import check_put_if_absent
from backfill_dagster.store.probe import check_once
from backfill_dagster.store.s3 import S3Store
from backfill_dagster_tests.aws.proxy import PASSING, Proxy, Seen, Trouble, mixed, proxied
from backfill_dagster_tests.store.contract import StoreContract

MIB = 1024 * 1024
PIECE = 5 * MIB
pytestmark = pytest.mark.usefixtures("no_backoff")

PART = "records/record_type=post/a~0000-00000001-1-x.parquet"


@pytest.fixture
def store(moto: str, bucket: str) -> S3Store:
    return S3Store(bucket, f"data/{uuid.uuid4().hex}", AwsPlace("us-east-1", moto), piece_bytes=PIECE)


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made


@pytest.fixture
def behind(proxy: Proxy, bucket: str) -> S3Store:
    """A store that is reached through the proxy."""
    return S3Store(bucket, "data", AwsPlace("us-east-1", proxy.url), piece_bytes=PIECE, sleep=lambda _: None)


class TestS3Store(StoreContract):
    """The same contract as a folder's."""

    stages_apart = False


def test_a_listing_has_many_pages(store: S3Store) -> None:
    keys = [f"log/a~0000/{number:08d}.json" for number in range(1005)]
    client = aws_client("s3", store._place)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=store._bucket, Key=store._at(key), Body=b"1"), keys))
    assert [info.key for info in store.list("log/")] == keys


def test_what_others_put_there_is_left_out(store: S3Store) -> None:
    client = aws_client("s3", store._place)
    for key in ("reports/", "a//b", "staging/x", "good"):
        client.put_object(Bucket=store._bucket, Key=f"{store._root}{key}", Body=b"")
    client.put_object(Bucket=store._bucket, Key=f"{store._root.rstrip('/')}__trial/x", Body=b"")
    assert [info.key for info in store.list("")] == ["good"]


def test_a_large_part_goes_up_in_pieces(behind: S3Store, proxy: Proxy) -> None:
    with behind.stage(PART) as file:
        file.write(b"a" * PIECE)
        file.write(b"b" * PIECE)
        file.write(b"c")
    assert [seen.query.get("partNumber") for seen in proxy.seen if seen.method == "PUT"] == ["1", "2", "3"]
    data = behind.get(PART)
    assert (len(data), data[:1], data[PIECE : PIECE + 1], data[-1:]) == (2 * PIECE + 1, b"a", b"b", b"c")
    assert behind.staged() == []


def test_a_large_part_never_takes_anothers_name(store: S3Store) -> None:
    store.put(PART, b"mine")
    with pytest.raises(StateError, match="it is there already, and no name is used twice"), store.stage(PART) as file:
        file.write(b"x" * (PIECE + 1))
    assert store.get(PART) == b"mine"
    assert store.staged() == []


def test_an_upload_that_nobody_finished_is_staged_and_can_be_discarded(store: S3Store) -> None:
    client = aws_client("s3", store._place)
    for _ in range(2):
        client.create_multipart_upload(Bucket=store._bucket, Key=store._at(PART))
    assert [info.key for info in store.staged()] == [PART]
    store.discard_staged(PART)
    assert store.staged() == []


def test_a_refused_piece_aborts_the_upload(behind: S3Store, proxy: Proxy) -> None:
    proxy.choose = lambda seen: Trouble.INTERNAL_ERROR if seen.query.get("partNumber") == "2" else None
    with (
        pytest.raises(AwsError, match=r"can't write s3://.*/data/records/.*x\.parquet: InternalError"),
        behind.stage(PART) as file,
    ):
        file.write(b"x" * (PIECE + 1))
    assert behind.staged() == []
    assert behind.exists(PART) is False


@pytest.mark.parametrize("size", [1, PIECE + 1], ids=["one PUT", "in pieces"])
def test_a_lost_reply_is_no_stranger(behind: S3Store, proxy: Proxy, size: int) -> None:
    method = "PUT" if size == 1 else "POST"
    lost = [Trouble.LOST_REPLY]
    proxy.choose = lambda seen: lost.pop() if lost and seen.method == method and "uploads" not in seen.query else None
    with behind.stage(PART) as file:
        file.write(b"x" * size)
    assert proxy.troubled == [Trouble.LOST_REPLY]
    assert len(behind.get(PART)) == size


def test_put_if_absent_after_a_lost_reply_says_taken(behind: S3Store, proxy: Proxy) -> None:
    """Whoever creates has to compare what is there, and does: the log by its nonce, the plan by its bytes."""
    lost = [Trouble.LOST_REPLY]
    proxy.choose = lambda seen: lost.pop() if lost and seen.method == "PUT" else None
    assert behind.put_if_absent("log/a~0000/00000001.json", b"one") is False
    assert behind.get("log/a~0000/00000001.json") == b"one"


def test_a_lost_reply_is_no_reason_to_refuse_a_store(behind: S3Store, proxy: Proxy) -> None:
    lost = [Trouble.LOST_REPLY]
    proxy.choose = lambda seen: lost.pop() if lost and seen.method == "PUT" else None
    check_put_if_absent(behind)
    assert proxy.troubled == [Trouble.LOST_REPLY]


def test_a_store_that_ignores_conditions_is_refused(behind: S3Store, proxy: Proxy) -> None:
    proxy.strip_headers = frozenset({"if-none-match"})
    with pytest.raises(StateError, match=r"s3://bucket-\w+/data ignores put-if-absent \(an object was created twice\)"):
        check_put_if_absent(behind)


@pytest.mark.parametrize("trouble", [Trouble.UNKNOWN_HEADER, Trouble.BAD_HEADER])
@pytest.mark.parametrize("number", [1, 2], ids=["at once", "where something is there"])
def test_a_store_that_refuses_conditions(behind: S3Store, proxy: Proxy, trouble: Trouble, number: int) -> None:
    puts: list[Seen] = []

    def choose(seen: Seen) -> Trouble | None:
        puts.extend([seen] if seen.method == "PUT" else [])
        return trouble if seen.method == "PUT" and len(puts) == number else None

    proxy.choose = choose
    with pytest.raises(
        StateError, match=r"s3://bucket-\w+/data knows no put-if-absent \((NotImplemented|InvalidArgument)\), so two"
    ) as caught:
        check_put_if_absent(behind)
    assert str(caught.value).endswith("use a local folder, or an S3 server that honours If-None-Match")
    proxy.choose = lambda seen: None
    assert behind.list("") == []


def test_another_service_is_another_store(behind: S3Store, proxy: Proxy, moto: str) -> None:
    """The same bucket and prefix elsewhere is asked for itself."""
    check_once(behind, lambda: "one")
    asked = len(proxy.seen)
    check_once(behind, lambda: "one")
    assert len(proxy.seen) == asked, "asked once"
    with proxied(moto) as other:
        elsewhere = S3Store(behind._bucket, "data", AwsPlace("us-east-1", other.url))
        assert (elsewhere.uri, elsewhere.identity) == (behind.uri, f"{other.url} {behind.uri}")
        check_once(elsewhere, lambda: "two")
        assert len(other.seen) == asked


def test_a_body_that_ends_early_is_read_again(behind: S3Store, proxy: Proxy) -> None:
    behind.put("reports/coverage.json", b"whole")
    lost = [Trouble.LOST_REPLY]
    proxy.choose = lambda seen: lost.pop() if lost and seen.method == "GET" else None
    assert behind.get("reports/coverage.json") == b"whole"


def test_nothing_is_lost_in_mixed_trouble(behind: S3Store, proxy: Proxy) -> None:
    proxy.choose = mixed(0.3, seed=7)
    for number in range(60):
        key, data = f"log/a~0000/{number:08d}.json", f"entry {number}".encode()
        if not behind.put_if_absent(key, data):
            assert behind.get(key) == data
    for number in range(10):
        with behind.stage(f"records/record_type=post/{number}.parquet") as file:
            file.write(b"x" * number)
    assert set(proxy.troubled) == set(PASSING)
    proxy.choose = lambda seen: None
    assert [behind.get(info.key) for info in behind.list("log/")] == [f"entry {n}".encode() for n in range(60)]
    assert [info.size for info in behind.list("records/")] == list(range(10))


def test_what_a_person_is_told(moto: str, bucket: str, store: S3Store) -> None:
    nowhere = S3Store("no-such-bucket-here", "x", AwsPlace("us-east-1", moto))
    with pytest.raises(AwsError, match=r"can't list s3://no-such-bucket-here/x/log/: NoSuchBucket.*create the bucket"):
        nowhere.list("log/")
    silent = S3Store(bucket, "x", AwsPlace("us-east-1", "http://127.0.0.1:9"), sleep=lambda _: None)
    with pytest.raises(AwsError, match=r"Could not connect to the endpoint URL.*see that the endpoint is right"):
        silent.get("a")
    with pytest.raises(ObjectMissingError, match=rf"can't read s3://{bucket}/.*/a: NoSuchKey.*see that the object"):
        store.get("a")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Trouble.EXPIRED, "ExpiredToken: The provided token has expired; the credentials have expired: log in again"),
        (Trouble.WRONG_SIGNATURE, r"SignatureDoesNotMatch: .*; the secret key is not that of the access key: see AWS_"),
        (Trouble.DENIED, "AccessDenied: User is not authorized to perform this; deploy/aws/ has a policy"),
    ],
)
def test_the_words_for_what_a_head_cant_say(behind: S3Store, proxy: Proxy, trouble: Trouble, said: str) -> None:
    """Its answer has no body: 400 or 403 is all that it says."""
    proxy.choose = lambda seen: trouble
    with pytest.raises(AwsError, match=rf"can't look at s3://.*/data/a: {said}"):
        behind.exists("a")
    with pytest.raises(AwsError, match=rf"can't look at s3://.*/data/a: {said}"):
        behind.open_input("a")


def test_a_head_that_is_refused_where_a_listing_is_not(behind: S3Store, proxy: Proxy) -> None:
    proxy.choose = lambda seen: Trouble.DENIED if seen.method == "HEAD" else None
    with pytest.raises(AwsError, match=r"can't look at s3://.*/data/a: 403: Forbidden; deploy/aws/ has a policy"):
        behind.exists("a")
    asked = [(seen.query["prefix"], seen.query["max-keys"]) for seen in proxy.seen if seen.method == "GET"]
    assert asked == [("data/a", "1")]


def test_what_is_not_there_is_asked_for_once(behind: S3Store, proxy: Proxy) -> None:
    assert behind.exists("a") is False
    assert [seen.method for seen in proxy.seen] == ["HEAD"]


def test_no_credentials(moto: str, monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    store = S3Store(bucket, "x", AwsPlace("eu-north-1", moto))
    with pytest.raises(AwsError, match="Unable to locate credentials; see AWS_ACCESS_KEY_ID"):
        store.get("a")


def test_an_upload_that_was_begun_twice_is_not_left_over(store: S3Store) -> None:
    """The reply to the first beginning got lost: the part is there, and an upload of it as well."""
    aws_client("s3", store._place).create_multipart_upload(Bucket=store._bucket, Key=store._at(PART))
    with store.stage(PART) as file:
        file.write(b"x" * (PIECE + 1))
    later = S3Store(store._bucket, store._root.rstrip("/"), store._place)
    assert [info.key for info in later.staged()] == [PART]
    later.publish([PART])
    assert later.staged() == []
    assert later.size(PART) == PIECE + 1


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("https://s3.us-east-1.amazonaws.com", None),
        ("https://s3.amazonaws.com", None),
        ("https://s3-fips.us-east-1.amazonaws.com", "s3-fips.us-east-1.amazonaws.com"),
        ("https://bucket.vpce-1a.s3.us-east-1.vpce.amazonaws.com", "bucket.vpce-1a.s3.us-east-1.vpce.amazonaws.com"),
        ("http://127.0.0.1:9000", "127.0.0.1:9000"),
    ],
)
def test_pyarrow_goes_where_boto3_goes(endpoint: str, told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("pyarrow.fs.S3FileSystem", lambda **options: given.update(options))
    ArrowS3(AwsPlace("us-east-1", endpoint)).filesystem()
    assert given.get("endpoint_override") == told
