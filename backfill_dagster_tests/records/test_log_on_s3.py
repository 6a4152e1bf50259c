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
def log(proxy: Proxy, bucket: str) -> ShardLog:
    store = S3Store(bucket, "data", AwsPlace("us-east-1", proxy.url), sleep=lambda _: None)
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
