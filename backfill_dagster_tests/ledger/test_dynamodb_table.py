"""The table itself: created on request, verified before it is used, every difference named."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from backfill_dagster.aws import AwsError, AwsPlace
from backfill_dagster.errors import StateError
from backfill_dagster.ledger import DynamodbLedger
from backfill_dagster.ledger.dynamodb_table import DynamodbTable, _schema
from backfill_dagster.model import Outcome
from backfill_dagster_tests.aws.proxy import proxied
from backfill_dagster_tests.ledger.contract import SHARD, item, lease
from backfill_dagster_tests.ledger.dynamodb_tables import (
    REGION,
    client_of,
    impatient,
    open_ledger,
    open_table,
    table_name,
)

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")


@pytest.fixture
def table(ministack: str) -> str:
    return table_name()


def make_raw(url: str, table: str, **changes: Any) -> None:
    client_of(url).create_table(**({"TableName": table, "BillingMode": "PAY_PER_REQUEST"} | _schema() | changes))


def attributes(*names: str, **types: str) -> list[dict[str, str]]:
    return [{"AttributeName": name, "AttributeType": types.get(name, "S")} for name in names]


def test_creating_is_for_once_and_for_all(ministack: str, table: str) -> None:
    assert open_table(ministack, table, create=False).create() is True
    assert open_table(ministack, table, create=False).create() is False
    described = client_of(ministack).describe_table(TableName=table)["Table"]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert {one["IndexName"] for one in described["GlobalSecondaryIndexes"]} == {"did-index", "attention-index"}
    open_ledger(ministack, table, create=False).put([item("did:plc:a", 1)])


def test_two_processes_that_create_it_at_once(ministack: str, table: str) -> None:
    both, created = threading.Barrier(2), []

    def create() -> None:
        one = open_table(ministack, table)
        both.wait(10)
        created.append(one.create())

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(created) == [False, True]


class TestMissing:
    """There is no such table."""

    def test_a_missing_table_is_an_error_with_its_remedy(self, ministack: str, table: str) -> None:
        ledger = open_ledger(ministack, table, create=False)
        said = rf"^DynamoDB table {table} at {ministack} \(us-east-1\): no such table; `backfill ledger create CONFIG`"
        for use in (
            ledger.state_id,
            lambda: list(ledger.items(SHARD)),
            lambda: ledger.put([item("did:plc:a", 1)]),
            lambda: ledger.leases.compare_and_set(lease().name, None, lease()),
        ):
            with pytest.raises(StateError, match=said):
                use()
        assert table not in client_of(ministack).list_tables()["TableNames"]

    @pytest.mark.parametrize("read_only", [False, True])
    def test_reading_creates_nothing(self, ministack: str, table: str, read_only: bool) -> None:
        ledger = open_ledger(ministack, table, read_only=read_only)
        assert (list(ledger.items(SHARD)), ledger.item(SHARD, "x"), ledger.find("x"), ledger.seqs(SHARD)) == (
            [],
            None,
            [],
            {},
        )
        assert (ledger.summaries(), ledger.attention(Outcome.PENDING, 9), ledger.retry_marks(SHARD)) == ({}, [], {})
        assert (ledger.marked_shards(), ledger.state_id(), ledger.leases.read("x")) == (set(), None, None)
        assert ledger.leases.holders() == []
        ledger.clear_marks(SHARD, ["x"])
        ledger.mark_for_retry(SHARD, {})
        ledger.put([])
        assert table not in client_of(ministack).list_tables()["TableNames"]

    def test_a_read_only_one_is_not_written(self, ministack: str, table: str) -> None:
        with pytest.raises(StateError, match="was opened to be read only; nothing was written"):
            open_ledger(ministack, table, read_only=True).bind_state("x")
        open_table(ministack, table).create()
        with pytest.raises(StateError, match="was opened to be read only; nothing was written"):
            open_ledger(ministack, table, read_only=True).put([item("did:plc:a", 1)])

    def test_a_reader_sees_what_is_created_meanwhile(self, ministack: str, table: str) -> None:
        reader, writer = open_ledger(ministack, table, read_only=True), open_ledger(ministack, table)
        assert reader.seqs(SHARD) == {}
        writer.put([item("did:plc:a", 1)])
        assert reader.seqs(SHARD) == {"did:plc:a": 1}

    def test_it_is_described_once(self, ministack: str, table: str) -> None:
        with proxied(ministack) as proxy:
            ledger = open_ledger(proxy.url, table)
            assert proxy.seen == [], "opening asks nobody"
            ledger.put([item("did:plc:a", 1)])
            ledger.seqs(SHARD)
            targets = [seen.target for seen in proxy.seen]
        assert targets == ["DescribeTable", "CreateTable", "DescribeTable", "UpdateItem", "BatchWriteItem", "Query"]


class TestDifferences:
    """A table that isn't ours is refused before anything is written into it."""

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                {
                    "KeySchema": [{"AttributeName": "did", "KeyType": "HASH"}],
                    "AttributeDefinitions": attributes("did"),
                    "GlobalSecondaryIndexes": None,
                },
                r"its key is \(did\), wanted \(pk, did\); it has no index did-index on \(did, finished_at\); it has no "
                r"index attention-index on \(attention, shard_did\)",
            ),
            (
                {
                    "GlobalSecondaryIndexes": _schema()["GlobalSecondaryIndexes"][:1],
                    "AttributeDefinitions": attributes("pk", "did", "finished_at"),
                },
                r"one of ours: it has no index attention-index on \(attention, shard_did\); take",
            ),
            (
                {
                    "AttributeDefinitions": attributes(
                        *["pk", "did", "finished_at", "attention", "shard_did"], finished_at="N"
                    )
                },
                "one of ours: the key of its index did-index has finished_at of type N, wanted S; take",
            ),
            (
                {
                    "GlobalSecondaryIndexes": [
                        _schema()["GlobalSecondaryIndexes"][0],
                        {
                            "IndexName": "attention-index",
                            "KeySchema": [{"AttributeName": "attention", "KeyType": "HASH"}],
                            "Projection": {"ProjectionType": "ALL"},
                        },
                    ],
                    "AttributeDefinitions": attributes("pk", "did", "finished_at", "attention"),
                },
                r"the key of its index attention-index is \(attention\), wanted \(attention, shard_did\)",
            ),
        ],
        ids=["another key", "an index is missing", "another type", "an index without its range key"],
    )
    def test_are_named(self, ministack: str, table: str, changes: dict[str, Any], said: str) -> None:
        wanted = _schema() | changes
        client_of(ministack).create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            **{name: value for name, value in wanted.items() if value is not None},
        )
        ledger = open_ledger(ministack, table)
        for use in (lambda: ledger.seqs(SHARD), lambda: ledger.put([item("x", 1)]), ledger._table.create):
            with pytest.raises(StateError, match=rf"^DynamoDB table {table} at {ministack} .*{said}"):
                use()
        assert client_of(ministack).scan(TableName=table)["Count"] == 0

    def test_more_than_wanted_is_fine(self, ministack: str, table: str) -> None:
        more = {
            "IndexName": "theirs",
            "KeySchema": [{"AttributeName": "run_id", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
        }
        wanted = _schema()
        make_raw(
            ministack,
            table,
            GlobalSecondaryIndexes=[*wanted["GlobalSecondaryIndexes"], more],
            AttributeDefinitions=[*wanted["AttributeDefinitions"], *attributes("run_id")],
        )
        ledger = open_ledger(ministack, table, create=False)
        ledger.put([item("did:plc:a", 1, Outcome.PENDING, run_id="r")])
        assert ledger.find("did:plc:a") == ledger.attention(Outcome.PENDING, 9)


@pytest.mark.parametrize("server", ["ministack", "dynalite"])
def test_a_provisioned_table(request: pytest.FixtureRequest, server: str) -> None:
    url, table = request.getfixturevalue(server), table_name()
    capacity = {"ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5}}
    indexes = [index | capacity for index in _schema()["GlobalSecondaryIndexes"]]
    make_raw(url, table, BillingMode="PROVISIONED", GlobalSecondaryIndexes=indexes, **capacity)
    ledger = open_ledger(url, table, create=False)
    items = [item(f"did:plc:{number:03d}", 1, Outcome.TOO_LARGE) for number in range(60)]
    ledger.put(items)
    assert list(ledger.items(SHARD)) == ledger.attention(Outcome.TOO_LARGE, 99) == items


class Slow:
    """boto3's client of a table that takes its time to be ready."""

    def __init__(self, client: Any, statuses: list[dict[str, Any]]) -> None:
        self._client = client
        self._statuses = statuses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def describe_table(self, **parameters: Any) -> Any:
        found = self._client.describe_table(**parameters)
        changes = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        for index in found["Table"]["GlobalSecondaryIndexes"]:
            index["IndexStatus"] = changes.get("IndexStatus", "ACTIVE")
        return {"Table": found["Table"] | {"TableStatus": changes.get("TableStatus", "ACTIVE")}}


class TestWaiting:
    """Until table and indexes are ready, within bounds."""

    def slow(self, url: str, table: str, *statuses: dict[str, Any]) -> tuple[DynamodbTable, list[float]]:
        slept: list[float] = []
        made = open_table(url, table, patience=impatient(sleep=slept.append))
        made._client = Slow(client_of(url), list(statuses))
        return made, slept

    def test_it_becomes_ready(self, ministack: str, table: str) -> None:
        creating, indexing = {"TableStatus": "CREATING"}, {"TableStatus": "UPDATING", "IndexStatus": "CREATING"}
        made, slept = self.slow(ministack, table, creating, creating, indexing, {"TableStatus": "UPDATING"})
        assert made.create() is True
        assert slept == [1.0] * 3

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            ({"TableStatus": "CREATING"}, "it is CREATING after 300 s; wait until it is ACTIVE"),
            (
                {"IndexStatus": "CREATING"},
                "its index did-index is CREATING, its index attention-index is CREATING after 300 s",
            ),
        ],
    )
    def test_it_never_does(self, ministack: str, table: str, status: dict[str, str], said: str) -> None:
        made, slept = self.slow(ministack, table, status)
        with pytest.raises(StateError, match=said):
            made.create()
        assert sum(slept) == 300

    def test_somebody_deletes_it(self, ministack: str, table: str) -> None:
        made = open_table(ministack, table)
        made._described = lambda: None  # type: ignore[method-assign]
        with pytest.raises(StateError, match="went away while it was created; see who deletes it"):
            made.create()


@pytest.mark.usefixtures("aws_environ")
class TestRefusals:
    """What can't be asked at all."""

    def test_no_region(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        ledger = DynamodbLedger(DynamodbTable("no_region", AwsPlace(None, "http://127.0.0.1:1/no-region")), "study")
        with pytest.raises(
            AwsError, match=r"can't open the DynamoDB table no_region: .*; set its region in the config"
        ):
            ledger.seqs(SHARD)

    def test_nobody_listens(self) -> None:
        table = DynamodbTable("results", AwsPlace(REGION, "http://127.0.0.1:9"))
        with pytest.raises(AwsError, match=r"can't look at the DynamoDB table results at http://127\.0\.0\.1:9 .*: .*"):
            table.is_there()


def test_it_is_the_service_that_looks_at_attributes(dynalite: str, table: str) -> None:
    """What is wrong is said in one line still; a look by boto3 costs three times as much as all else that it does."""
    with proxied(dynalite) as proxy:
        requests = open_ledger(proxy.url, table)._requests
        requests.table.for_writing()
        proxy.seen.clear()
        with pytest.raises(AwsError, match=r"^can't read an item of the DynamoDB table .*; see what the service says"):
            requests.ask("read an item of", "get_item", Key={"pk": {"S": 5}, "did": {"S": "a"}})
        assert [seen.target for seen in proxy.seen] == ["GetItem"]
