"""An entry of the log whose fate S3 doesn't tell: nothing more is touched, for it may come to stand later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backfill_dagster.aws import AwsPlace
from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.store.s3 import S3Store
from backfill_dagster_tests.aws.proxy import Proxy, Trouble, proxied

pytestmark = pytest.mark.usefixtures("no_backoff")

SHARD = "pds.example~0000"


@pytest.fixture
def proxy(moto: str, bucket: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made


@pytest.fixture
def store(proxy: Proxy, bucket: str) -> S3Store:
    return S3Store(bucket, "data", AwsPlace("us-east-1", proxy.url), sleep=lambda _: None)


@pytest.fixture
def log(store: S3Store) -> ShardLog:
    numbers = iter(range(100))
    return ShardLog(store, SHARD, nonce=lambda: f"nonce {next(numbers)}")


def append(log: ShardLog, fold: Fold) -> Fold:
    return log.append(fold, epoch=1, run_id="run", scope="scope", refresh=0)


def on_puts(trouble: Trouble, proxy: Proxy) -> None:
    proxy.choose = lambda seen: trouble if seen.method == "PUT" else None


@pytest.mark.parametrize("trouble", [Trouble.RESET, Trouble.INTERNAL_ERROR])
def test_without_an_answer_the_entry_may_stand_although_it_is_not_there(
    log: ShardLog, proxy: Proxy, trouble: Trouble
) -> None:
    """What was sent may be on its way still: whoever took its parts back now would have lost them."""
    fold = log.seal(Fold(), epoch=1, run_id="run")
    on_puts(trouble, proxy)
    with pytest.raises(FencedError, match="may or may not have been written") as caught:
        append(log, fold)
    assert caught.value.may_stand
    proxy.choose = lambda seen: None
    assert log.read() == fold


def test_a_refusal_is_an_answer(log: ShardLog, proxy: Proxy) -> None:
    fold = log.seal(Fold(), epoch=1, run_id="run")
    on_puts(Trouble.DENIED, proxy)
    with pytest.raises(StateError, match=r"can't create s3://.*/00000002\.json: AccessDenied") as caught:
        append(log, fold)
    assert caught.value.may_have_happened is False


def test_a_refusal_at_a_later_try_says_nothing_of_the_first(log: ShardLog, proxy: Proxy) -> None:
    """boto3 tries again by itself, and what it raises is about the last try."""
    fold = log.seal(Fold(), epoch=1, run_id="run")
    tries = [Trouble.DENIED, Trouble.LATE]
    proxy.choose = lambda seen: tries.pop() if tries and seen.method == "PUT" else None
    with pytest.raises(FencedError, match=r"may or may not have been written .*AccessDenied") as caught:
        append(log, fold)
    assert caught.value.may_stand
    assert log.read() == fold
    assert proxy.deliver() == [200]
    assert log.read().seq == fold.seq + 1


def test_what_is_late_meets_the_seal(log: ShardLog, proxy: Proxy) -> None:
    fold = log.seal(Fold(), epoch=1, run_id="run")
    tries = [Trouble.DENIED, Trouble.LATE]
    proxy.choose = lambda seen: tries.pop() if tries and seen.method == "PUT" else None
    with pytest.raises(FencedError, match="may or may not have been written"):
        append(log, fold)
    sealed = log.seal(log.read(), epoch=2, run_id="next")
    assert proxy.deliver() == [412]
    assert log.read() == sealed


def test_a_look_that_is_refused_doesnt_make_a_refusal_sure(store: S3Store, log: ShardLog, proxy: Proxy) -> None:
    """The entry was refused and isn't there, by one question; the other one got no answer."""
    fold = log.seal(Fold(), epoch=1, run_id="run")
    proxy.choose = lambda seen: {"PUT": Trouble.DENIED, "HEAD": Trouble.INTERNAL_ERROR}.get(seen.method)
    with pytest.raises(FencedError, match="may or may not have been written") as caught:
        append(log, fold)
    assert caught.value.may_stand


def test_a_number_that_is_taken_by_something_illegible(store: S3Store, log: ShardLog) -> None:
    fold = log.seal(Fold(), epoch=1, run_id="run")
    store.put(log.key(fold.seq + 1), b"\0\0\0")
    with pytest.raises(FencedError, match=r"may or may not have been written \(what is there can't be read") as caught:
        append(log, fold)
    assert caught.value.may_stand


def test_an_entry_whose_reply_was_lost_stands(log: ShardLog, proxy: Proxy) -> None:
    fold = log.seal(Fold(), epoch=1, run_id="run")
    lost = [Trouble.LOST_REPLY]
    proxy.choose = lambda seen: lost.pop() if lost and seen.method == "PUT" else None
    assert append(log, fold) == log.read()
    assert proxy.troubled == [Trouble.LOST_REPLY]


def test_a_number_that_is_taken_by_nobody_knows_whom(log: ShardLog, proxy: Proxy) -> None:
    """The entry stands, its reply got lost, and then S3 doesn't say whose it is."""
    fold = log.seal(Fold(), epoch=1, run_id="run")
    lost = [Trouble.LOST_REPLY]
    proxy.choose = lambda seen: (
        (lost.pop() if lost else None)
        if seen.method == "PUT"
        else Trouble.INTERNAL_ERROR
        if seen.method == "GET"
        else None
    )
    with pytest.raises(FencedError, match="may or may not have been written") as caught:
        append(log, fold)
    assert caught.value.may_stand
    proxy.choose = lambda seen: None
    assert log.read().seq == fold.seq + 1
