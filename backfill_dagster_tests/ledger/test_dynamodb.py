"""The ledger in DynamoDB: contract, attributes, paging, cutting, odd items, stale indexes."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeSerializer

from backfill_dagster.errors import StateError
from backfill_dagster.ledger import DynamodbLedger, ShardSummary, item_attributes
from backfill_dagster.ledger.dynamodb_items import BUCKETS, did_key
from backfill_dagster.ledger.dynamodb_requests import side_by_side
from backfill_dagster.ledger.dynamodb_wire import to_wire
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome
from backfill_dagster_tests.aws.proxy import proxied
from backfill_dagster_tests.ledger.contract import FULL, OTHER, SHARD, LedgerContract, MakeLedger, item, lease
from backfill_dagster_tests.ledger.dynamodb_tables import client_of, dids_of, open_ledger, table_name

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")


@pytest.fixture
def table(ministack: str) -> str:
    return table_name()


@pytest.fixture
def make_ledger(ministack: str, table: str) -> MakeLedger:
    def make(backfill: str) -> DynamodbLedger:
        return open_ledger(ministack, table, backfill)

    return make


@pytest.fixture
def ledger(make_ledger: MakeLedger) -> DynamodbLedger:
    made = make_ledger("study")
    assert isinstance(made, DynamodbLedger)
    return made


class TestOnMinistack(LedgerContract):
    """The same contract as SQLite's."""


def put_raw(url: str, table: str, **values: Any) -> None:
    writer = TypeSerializer()
    client_of(url).put_item(TableName=table, Item={name: writer.serialize(value) for name, value in values.items()})


def test_what_readers_of_the_table_see(ministack: str, table: str, ledger: DynamodbLedger) -> None:
    full = LedgerItem(backfill="study", shard=SHARD, seq=7, result=FULL)
    ledger.put([full])
    [found] = dids_of(ministack, table)
    wanted = item_attributes(full)
    assert {name: found[name] for name in wanted} == wanted
    assert {name: found[name] for name in set(found) - set(wanted)} == {
        "pk": f"study#{SHARD}",
        "attention": f"study#http_error#{found['attention'].rpartition('#')[2]}",
        "shard_did": f"{SHARD}#did:plc:full",
    }
    assert found["bluesky_handle"] == "alice.example"
    assert (found["types"], found["total_records"]) == ("like,post", 7)
    assert found["total_records_by_type"] == '{"like":4,"post":3}'
    assert (found["pds_service_endpoint"], found["timestamp"]) == ("https://pds.example", "2026-11-23-19:00:01")
    assert {field.name for field in dataclasses.fields(RepoOutcome)} - set(found) == {"tree"}


def test_what_never_finished_is_in_the_index_all_the_same(ministack: str, table: str, ledger: DynamodbLedger) -> None:
    ledger.put([item("did:plc:a", 1)])
    [found] = dids_of(ministack, table)
    assert found["finished_at"] == "-"
    assert "attention" not in found
    assert [one.result.finished_at for one in ledger.find("did:plc:a")] == [None]


def test_texts_that_utf8_cannot_say(ledger: DynamodbLedger) -> None:
    odd = item("did:plc:\udcff", 1, Outcome.HTTP_ERROR, error_headers={"a\udcff": "\udcff"}, error_detail="\udcff")
    ledger.put([odd])
    found = ledger.item(SHARD, "did:plc:\udcff")
    assert found is not None
    assert found == ledger.as_kept(odd)
    assert (found.result.did, found.result.error_headers, found.result.error_detail) == ("did:plc:?", {"a?": "?"}, "?")
    ledger.mark_for_retry(SHARD, {"did:plc:\udcff": 1})
    ledger.put([item("did:plc:\udcff", 2)])
    ledger.clear_marks(SHARD, ["did:plc:\udcff"])
    assert ledger.retry_marks(SHARD) == {}


def test_a_did_that_looks_like_a_hash_takes_nobodys_place(ledger: DynamodbLedger) -> None:
    pair = [item("", 1), item(did_key(""), 2)]
    ledger.put(pair)
    assert sorted(ledger.items(SHARD), key=lambda one: one.seq) == pair
    assert ledger.seqs(SHARD) == {"": 1, did_key(""): 2}


class TestPages:
    """A query gives a MiB at a time."""

    def test_items_of_many_pages(self, ministack: str, table: str) -> None:
        seen = {f"org.example.{'x' * 80}{number}": number for number in range(200)}
        large = [item(f"did:plc:{n:04d}", 1, Outcome.NOT_FOUND, records_seen_by_collection=seen) for n in range(150)]
        with proxied(ministack) as proxy:
            ledger = open_ledger(proxy.url, table)
            ledger.put(large)
            proxy.seen.clear()
            assert list(ledger.items(SHARD)) == large
            assert len(proxy.seen) >= 3
            assert len({one.result.did for one in ledger.attention(Outcome.NOT_FOUND, 150)}) == 150

    def test_every_query_is_paged(self, ministack: str, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As with a table whose pages hold two items."""
        ledger = open_ledger(ministack, table)
        ask = ledger._requests.ask
        pages: list[str] = []

        def small(doing: str, operation: str, **parameters: Any) -> Any:
            if operation in ("query", "scan"):
                pages.append(doing)
                parameters |= {"Limit": min(2, parameters.get("Limit", 2))}
            return ask(doing, operation, **parameters)

        monkeypatch.setattr(ledger._requests, "ask", small)
        dids = [f"did:plc:{number}" for number in range(7)]
        ledger.put([item(did, 1, Outcome.TOO_LARGE) for did in dids])
        ledger.put([item("did:plc:0", 1, Outcome.TOO_LARGE, shard=f"pds.example~{n:04d}") for n in range(1, 6)])
        ledger.put([item(did, 1, shard="c.example~0000") for did in dids])
        for number in range(5):
            ledger.put_summary(f"shard{number}", ShardSummary(seq=number))
            name = f"study/{number}"
            ledger.leases.compare_and_set(name, None, lease(name=name))
        ledger.mark_for_retry(SHARD, dict.fromkeys(dids, 1))
        ledger.mark_for_retry(OTHER, dict.fromkeys(dids, 2))
        assert [one.result.did for one in ledger.items(SHARD)] == dids
        assert ledger.seqs(SHARD) == dict.fromkeys(dids, 1)
        assert len(ledger.find("did:plc:0")) == 7
        assert len(ledger.summaries()) == 5
        assert len(ledger.leases.holders()) == 5
        assert ledger.retry_marks(OTHER) == dict.fromkeys(dids, 2)
        assert ledger.marked_shards() == {SHARD, OTHER}
        assert [one.shard for one in ledger.attention(Outcome.TOO_LARGE, 9)] == [SHARD] * 7 + [
            OTHER,
            "pds.example~0002",
        ]
        assert len(ledger.attention(Outcome.TOO_LARGE, 99)) == 12
        assert len(pages) > 40

    def test_shards_with_marks_take_a_request_each(self, ministack: str, table: str) -> None:
        with proxied(ministack) as proxy:
            ledger = open_ledger(proxy.url, table)
            for shard in (SHARD, OTHER, "_unroutable"):
                ledger.mark_for_retry(shard, {f"did:plc:{number}": 1 for number in range(40)})
            proxy.seen.clear()
            assert ledger.marked_shards() == {SHARD, OTHER, "_unroutable"}
            assert [seen.target for seen in proxy.seen] == ["Query"] * 4

    def test_who_asks_for_one_is_not_given_all(self, ministack: str, table: str) -> None:
        with proxied(ministack) as proxy:
            ledger = open_ledger(proxy.url, table)
            ledger.put([item(f"did:plc:{number:03d}", 1, Outcome.MOVED) for number in range(200)])
            proxy.seen.clear()
            assert [one.result.did for one in ledger.attention(Outcome.MOVED, 1)] == ["did:plc:000"]
            assert [seen.body["Limit"] for seen in proxy.seen if seen.target == "Query"] == [1] * BUCKETS


class TestOddItems:
    """What another program wrote is said in one line with its key."""

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"seq": "7"}, r"seq is '7', not a whole number"),
            ({"seq": Decimal("7.5")}, r"seq is '7\.5', not a whole number"),
            ({"outcome": "wonderful"}, "'wonderful' is not a valid Outcome"),
            ({"outcome": None}, "outcome is 'None', not a text"),
            ({"records_by_type": {"post": "many"}}, "not a map of whole numbers"),
            ({"error_headers": "x"}, "error_headers is 'x', not a map of texts"),
            ({"signature_checked": 1}, "signature_checked is '1', not a true or false"),
            ({"handle": {"a\x1bb", "c"}}, "a value of DynamoDB's type SS"),
            ({"backfill": "other"}, "its key is not that of its backfill, shard and DID"),
            ({"real_did": "did:plc:other"}, "its key is not that"),
        ],
    )
    def test_an_item(
        self, ministack: str, table: str, ledger: DynamodbLedger, changes: dict[str, Any], said: str
    ) -> None:
        ledger.put([item("did:plc:a", 1, Outcome.PENDING)])
        [found] = dids_of(ministack, table)
        put_raw(ministack, table, **(found | changes))
        key = rf"the item 'study#{SHARD} / did:plc:a' can't be read: .*{said}.*; another program wrote it: delete it"
        for read in (lambda: list(ledger.items(SHARD)), lambda: ledger.item(SHARD, "did:plc:a")):
            with pytest.raises(StateError, match=key) as caught:
                read()
            assert str(caught.value).isprintable()

    @pytest.mark.parametrize("name", ["seq", "outcome", "backfill", "finished_at"])
    def test_an_item_without_something(self, ministack: str, table: str, ledger: DynamodbLedger, name: str) -> None:
        ledger.put([item("did:plc:a", 1)])
        [found] = dids_of(ministack, table)
        put_raw(ministack, table, **{key: value for key, value in found.items() if key != name})
        with pytest.raises(StateError, match=f"can't be read: it has no '{name}'"):
            ledger.item(SHARD, "did:plc:a")
        if name == "seq":
            with pytest.raises(StateError, match="can't be read: it has no 'seq'"):
                ledger.seqs(SHARD)

    def test_an_item_of_an_earlier_version_has_defaults(
        self, ministack: str, table: str, ledger: DynamodbLedger
    ) -> None:
        ledger.put([item("did:plc:a", 1, undated=3)])
        [found] = dids_of(ministack, table)
        less = {name: found[name] for name in ("pk", "did", "backfill", "shard", "seq", "outcome", "finished_at")}
        put_raw(ministack, table, **less)
        assert ledger.item(SHARD, "did:plc:a") == item("did:plc:a", 1)

    @pytest.mark.parametrize(
        ("values", "read"),
        [
            ({"pk": "study#shards", "did": SHARD, "seq": 1, "outcomes": "x", "rows": {}, "settled": None}, "summaries"),
            ({"pk": "study#shards", "did": SHARD, "seq": 1, "rows": {}, "settled": None}, "summaries"),
            (
                {"pk": "study#shards", "did": SHARD, "seq": 1, "outcomes": {"a": "b"}, "rows": {}, "settled": None},
                "summaries",
            ),
            ({"pk": f"study#{SHARD}", "did": "did:plc:a", "seq": "1"}, "seqs"),
            ({"pk": "study#retry", "did": f"{SHARD}#x", "real_did": "x", "seq": "1"}, "retry_marks"),
            ({"pk": "study#retry", "did": f"{SHARD}#x", "seq": 1}, "retry_marks"),
            ({"pk": "study#leases", "did": SHARD, **asdict(lease()), "lease_seconds": "x"}, "leases"),
            ({"pk": "study#leases", "did": SHARD, "epoch": 1}, "leases"),
        ],
    )
    def test_others(
        self, ministack: str, table: str, ledger: DynamodbLedger, values: dict[str, Any], read: str
    ) -> None:
        ledger._table.for_writing()
        put_raw(ministack, table, **values)
        readers = {
            "summaries": ledger.summaries,
            "seqs": lambda: ledger.seqs(SHARD),
            "retry_marks": lambda: ledger.retry_marks(SHARD),
            "leases": ledger.leases.holders,
        }
        with pytest.raises(StateError, match=rf"the item '{values['pk']} / {values['did']}' can't be read: "):
            readers[read]()

    def test_a_foreign_item_without_a_seq_answers_no_mark(
        self, ministack: str, table: str, ledger: DynamodbLedger
    ) -> None:
        ledger.mark_for_retry(SHARD, {"did:plc:a": 1})
        put_raw(ministack, table, pk=f"study#{SHARD}", did="did:plc:a")
        ledger.clear_marks(SHARD, ["did:plc:a"])
        assert ledger.retry_marks(SHARD) == {"did:plc:a": 1}


def test_what_an_index_says_late_is_left_out(ministack: str, table: str, ledger: DynamodbLedger) -> None:
    """An index may lag: the item has another outcome by now, or is gone."""
    ledger.put([item("did:plc:a", 1, Outcome.PENDING), item("did:plc:b", 1)])
    indexed = ledger._indexed
    late = [
        {"pk": f"study#{SHARD}", "did": did, "shard_did": f"{SHARD}#{did}"} for did in ("did:plc:b", "did:plc:gone")
    ]

    def lagging(index: str, name: str, value: str, **options: Any) -> Any:
        yield from indexed(index, name, value, **options)
        yield from map(to_wire, late if value.endswith("#15") or index == "did-index" else [])

    ledger._indexed = lagging  # type: ignore[method-assign]
    assert [one.result.did for one in ledger.attention(Outcome.PENDING, 9)] == ["did:plc:a"]


def test_pieces_of_work_side_by_side() -> None:
    done: list[int] = []
    side_by_side(done.append, range(50), at_once=4)
    assert sorted(done) == list(range(50))

    def fails(number: int) -> None:
        if number == 3:
            raise StateError(f"no {number}")

    with pytest.raises(StateError, match="no 3"):
        side_by_side(fails, range(50))
    with pytest.raises(StateError, match="no 3"):
        side_by_side(fails, [3])
