"""The DynamoDB ledger behind a faulty proxy: nothing lost, nothing doubled, no false conflict, patience has an end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from backfill_dagster.aws import AwsError
from backfill_dagster.errors import LeaseHeldError, StateError
from backfill_dagster.ledger import DynamodbLedger, Lease, ShardSummary
from backfill_dagster.ledger.dynamodb_patience import Patience
from backfill_dagster.model import LedgerItem, Outcome
from backfill_dagster_tests.aws.proxy import PASSING, Proxy, Seen, Trouble, mixed, proxied
from backfill_dagster_tests.ledger.contract import FULL, SHARD, item, lease
from backfill_dagster_tests.ledger.dynamodb_tables import client_of, impatient, open_ledger, table_name

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")

ITEMS = 2500


@pytest.fixture(params=["ministack", "dynalite"])
def server(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def table() -> str:
    return table_name()


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with proxied(server) as made:
        yield made


@pytest.fixture
def ledger(proxy: Proxy, table: str) -> DynamodbLedger:
    """Behind the proxy, its table there and verified."""
    made = open_ledger(proxy.url, table)
    made._table.for_writing()
    proxy.seen.clear()
    return made


def first(trouble: Trouble, target: str, times: int = 1) -> Any:
    """The first requests of a kind meet with trouble."""
    left, lock = [trouble] * times, threading.Lock()

    def choose(seen: Seen) -> Trouble | None:
        with lock:
            return left.pop() if left and seen.target == target else None

    return choose


def test_2500_items_at_30_percent_faults_of_all_kinds(
    server: str, proxy: Proxy, ledger: DynamodbLedger, table: str
) -> None:
    outcomes = list(Outcome)
    items = [item(f"did:plc:{n:05d}", 1, outcomes[n % len(outcomes)], undated=n) for n in range(ITEMS)]
    proxy.choose = mixed(0.3, 1)
    for start in range(0, ITEMS, 500):
        ledger.put(items[start : start + 500])
    assert set(proxy.troubled) == set(PASSING), "all kinds were met"
    proxy.choose = lambda seen: None
    assert list(ledger.items(SHARD)) == items
    found = [
        one["did"]["S"] for one in client_of(server).get_paginator("scan").paginate(TableName=table).search("Items")
    ]
    assert Counter(found) == Counter([one.result.did for one in items] + ["state"]), "nothing besides"
    lost = [one for one in items if one.result.outcome is Outcome.PENDING]
    assert ledger.attention(Outcome.PENDING, ITEMS) == lost


def test_readers_at_30_percent_faults(proxy: Proxy, ledger: DynamodbLedger) -> None:
    items = [item(f"did:plc:{n:05d}", 1, Outcome.TOO_LARGE) for n in range(700)]
    ledger.put(items)
    proxy.choose = mixed(0.3, 5)
    for _ in range(3):
        assert list(ledger.items(SHARD)) == items
        assert ledger.attention(Outcome.TOO_LARGE, 999) == items
        assert ledger.seqs(SHARD) == {one.result.did: 1 for one in items}
        assert ledger.find("did:plc:00003") == items[3:4]
    assert Trouble.HALF in proxy.troubled


def test_marks_at_30_percent_faults(proxy: Proxy, ledger: DynamodbLedger) -> None:
    dids = [f"did:plc:{number:03d}" for number in range(150)]
    ledger.put([item(did, 5, Outcome.HTTP_ERROR) for did in dids])
    proxy.choose = mixed(0.3, 3)
    ledger.mark_for_retry(SHARD, dict.fromkeys(dids, 4))
    ledger.mark_for_retry(SHARD, dict.fromkeys(dids[:50], 6))
    ledger.mark_for_retry(SHARD, dict.fromkeys(dids, 2))
    assert ledger.retry_marks(SHARD) == dict.fromkeys(dids[:50], 6) | dict.fromkeys(dids[50:], 4)
    ledger.clear_marks(SHARD, dids)
    assert ledger.retry_marks(SHARD) == dict.fromkeys(dids[:50], 6)
    assert len(set(proxy.troubled)) >= 4


def test_summaries_and_bindings_at_30_percent_faults(proxy: Proxy, ledger: DynamodbLedger) -> None:
    proxy.choose = mixed(0.3, 4)
    ledger.bind_state("id1")
    for seq in range(1, 40):
        ledger.put_summary(SHARD, ShardSummary(outcomes={"complete": seq}, seq=seq))
        ledger.put_summary(SHARD, ShardSummary(outcomes={"complete": 99}, seq=seq - 1))
    assert ledger.summaries() == {SHARD: ShardSummary(outcomes={"complete": 39}, seq=39)}
    ledger.bind_state("id1")
    with pytest.raises(StateError, match="belongs to the state id1 of study"):
        ledger.bind_state("id2")


class TestLostReplies:
    """It is done, the reply is lost, and boto3's own second try meets the condition."""

    def test_of_a_lease_taken(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        proxy.choose = first(Trouble.LOST_REPLY, "PutItem")
        with Lease.acquire(ledger.leases, "study/a", owner="me", run_id="r", lease_seconds=60) as held:
            assert [seen.target for seen in proxy.seen] == ["GetItem", "PutItem", "PutItem", "GetItem"]
            held.check()
            with pytest.raises(LeaseHeldError, match="study/a is held by me"):
                Lease.acquire(ledger.leases, "study/a", owner="other", run_id="s", lease_seconds=60, wait=False)
        assert ledger.leases.holders() == []

    @pytest.mark.parametrize("beats", [1, 2])
    def test_of_heartbeats(self, proxy: Proxy, ledger: DynamodbLedger, beats: int) -> None:
        with Lease.acquire(ledger.leases, "study/a", owner="me", run_id="r", lease_seconds=60) as held:
            for _ in range(beats):
                proxy.choose = first(Trouble.LOST_REPLY, "PutItem")
                assert held.beat() is False, "a beat is tried once"
            assert held.beat() is True, "the record is one's own all the same"
            assert held.beat() is True
            held.check()
            found = ledger.leases.read("study/a")
            assert found is not None
            assert found.beat == 2

    def test_of_a_release(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        held = Lease.acquire(ledger.leases, "study/a", owner="me", run_id="r", lease_seconds=60)
        proxy.choose = first(Trouble.LOST_REPLY, "PutItem")
        assert held.release() is True

    def test_and_whatever_else_of_a_lease(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        proxy.choose = mixed(0.3, 6)
        for number in range(40):
            with Lease.acquire(ledger.leases, "study/a", owner="me", run_id="r", lease_seconds=3600) as held:
                for _ in range(3):
                    held.beat()
                held.check()
                assert held.epoch == number + 1
        assert ledger.leases.holders() == []

    def test_a_conflict_is_still_one(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        proxy.choose = mixed(0.3, 7)
        ledger.leases.compare_and_set(lease().name, None, lease())
        for beat in range(1, 30):
            assert ledger.leases.compare_and_set(lease().name, lease(beat), lease(beat + 1)) is False
        assert ledger.leases.read(lease().name) == lease()

    def test_of_an_item_over_another(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        wrong = [item(f"did:plc:{number}", 5, rev="wrong") for number in range(40)]
        right = [item(f"did:plc:{number}", 3, rev="right") for number in range(40)]
        ledger.put(wrong)
        proxy.choose = mixed(0.4, 8, (Trouble.LOST_REPLY,))
        ledger.put(right, over=ledger.seqs(SHARD))
        proxy.choose = lambda seen: None
        assert Trouble.LOST_REPLY in proxy.troubled
        assert sorted(ledger.items(SHARD), key=lambda one: one.result.did) == sorted(right, key=lambda o: o.result.did)

    def test_of_a_binding(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        proxy.choose = first(Trouble.LOST_REPLY, "UpdateItem")
        ledger.bind_state("id1")
        assert [seen.target for seen in proxy.seen] == ["GetItem", "UpdateItem", "UpdateItem", "GetItem"]
        assert ledger.state_id() == "id1"
        with pytest.raises(StateError, match="belongs to the state id1 of study"):
            ledger.bind_state("id2")

    def test_of_the_note_that_there_are_items(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        proxy.choose = first(Trouble.LOST_REPLY, "UpdateItem")
        ledger.put([item("did:plc:a", 1)])
        assert [seen.target for seen in proxy.seen] == ["UpdateItem", "UpdateItem", "BatchWriteItem"]
        assert ledger.seqs(SHARD) == {"did:plc:a": 1}
        with pytest.raises(StateError, match="belongs to the state of an unknown id of study"):
            ledger.bind_state("id1")

    def test_of_a_summary(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        summaries = [ShardSummary(outcomes={"complete": seq}, seq=seq) for seq in (1, 2)]
        for summary in summaries:
            proxy.choose = first(Trouble.LOST_REPLY, "PutItem")
            ledger.put_summary(SHARD, summary)
            assert ledger.summaries() == {SHARD: summary}
        assert len(proxy.troubled) == 2

    def test_of_a_mark(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        for seq in (1, 3):
            proxy.choose = first(Trouble.LOST_REPLY, "PutItem")
            ledger.mark_for_retry(SHARD, {"did:plc:a": seq})
            assert ledger.retry_marks(SHARD) == {"did:plc:a": seq}
        assert len(proxy.troubled) == 2

    def test_of_a_mark_cleared(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        ledger.put([item("did:plc:a", 2), item("did:plc:b", 2)])
        ledger.mark_for_retry(SHARD, {"did:plc:a": 1, "did:plc:b": 2})
        proxy.choose = first(Trouble.LOST_REPLY, "DeleteItem")
        ledger.clear_marks(SHARD, ["did:plc:a", "did:plc:b"])
        assert proxy.troubled == [Trouble.LOST_REPLY]
        assert ledger.retry_marks(SHARD) == {"did:plc:b": 2}


class TestBounds:
    """Patience ends, with an error that says what to do."""

    def test_throttled_for_ever(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        proxy.choose = lambda seen: Trouble.THROTTLED if seen.target == "BatchWriteItem" else None
        said = (
            r"can't write items to the DynamoDB table .*: ProvisionedThroughputExceededException.*; the service is busy"
        )
        with pytest.raises(AwsError, match=said):
            ledger.put([item("did:plc:a", 1)])
        assert len(proxy.troubled) >= 12, "our own tries, each of them several of boto3's"

    def test_nothing_of_a_batch_is_ever_done(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        """Half of one item is none."""
        proxy.choose = lambda seen: Trouble.HALF
        slept: list[float] = []
        impatient_table = open_ledger(proxy.url, ledger._table.name, patience=impatient(sleep=slept.append))
        said = (
            r"can't write items to the DynamoDB table .*: 1 of 1 were left unprocessed for \d+ s; give the table more"
        )
        with pytest.raises(StateError, match=said):
            impatient_table.put([item("did:plc:a", 1)])
        assert len(slept) == 11
        assert 0 < max(slept) <= 10
        with pytest.raises(
            StateError, match=r"can't read items of the DynamoDB table .*: 1 of 1 were left unprocessed"
        ):
            list(impatient_table._requests.get_many([("a", "b")]))

    def test_half_of_each_batch_takes_many_tries(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        left = iter(range(100))
        proxy.choose = lambda seen: Trouble.HALF if next(left) % 3 else None
        items = [item(f"did:plc:{number:02d}", 1) for number in range(75)]
        ledger.put(items)
        assert list(ledger.items(SHARD)) == items
        writes = [
            len(seen.body["RequestItems"][ledger._table.name]) for seen in proxy.seen if "RequestItems" in seen.body
        ]
        assert sorted(writes)[-3:] == [25, 25, 25]
        assert len(writes) > 3

    def test_what_cannot_pass_is_not_tried_again(self, ministack: str, table: str) -> None:
        slept: list[float] = []
        ledger = open_ledger(ministack, table, patience=impatient(sleep=slept.append))
        ledger._table.for_writing()
        client_of(ministack).delete_table(TableName=table)
        with pytest.raises(
            AwsError, match=r"can't read items of the DynamoDB table .*; create it with `backfill ledger"
        ):
            ledger.seqs(SHARD)
        with pytest.raises(AwsError, match="ResourceNotFoundException"):
            ledger.put([LedgerItem(backfill="study", shard=SHARD, seq=1, result=FULL)])
        assert slept == []

    def test_the_first_error_ends_the_rest(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        proxy.choose = lambda seen: Trouble.THROTTLED if seen.target == "PutItem" else None
        with pytest.raises(AwsError, match="can't write a retry mark in the DynamoDB table"):
            ledger.mark_for_retry(SHARD, {f"did:plc:{number}": 1 for number in range(40)})


class TestPatience:
    """Backoff with jitter."""

    def test_it_doubles_up_to_a_bound(self) -> None:
        slept: list[float] = []
        trying = Patience(tries_max=9, longest_seconds=2, sleep=slept.append, random=lambda: 1.0).trying()
        while trying.again():
            pass
        assert slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2])

    def test_progress_begins_anew(self) -> None:
        slept: list[float] = []
        trying = Patience(sleep=slept.append, random=lambda: 0.5, monotonic=lambda: 0.0).trying()
        assert [trying.again(progress=number % 3 == 2) for number in range(6)] == [True] * 6
        assert slept == pytest.approx([0.05, 0.1, 0.025, 0.05, 0.1, 0.025])

    def test_all_together_take_so_long_at_most(self) -> None:
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += 40

        trying = Patience(sleep=sleep, monotonic=lambda: now[0]).trying()
        tries = 0
        while trying.again(progress=True):
            tries += 1
        assert (tries, trying.seconds) == (8, 320)
