"""Items as DynamoDB keeps them: numbers and texts both ways, and cut to what an item may hold."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeSerializer
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.ledger import DynamodbLedger, ShardSummary
from backfill_dagster.ledger.dynamodb_items import as_kept, to_item
from backfill_dagster.ledger.dynamodb_wire import from_wire, to_wire
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome
from backfill_dagster_tests.ledger.contract import SHARD, item
from backfill_dagster_tests.ledger.dynamodb_tables import client_of, dids_of, open_ledger, table_name

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")

BUSY = RepoOutcome(
    did="did:plc:busy",
    outcome=Outcome.HTTP_ERROR,
    records_by_type={f"org.example.type{number}": number for number in range(200)},
    records_seen_by_collection={f"org.example.{'x' * 200}.c{number}": number for number in range(3000)},
)


@pytest.fixture
def table() -> str:
    return table_name()


@pytest.fixture
def ledger(ministack: str, table: str) -> DynamodbLedger:
    return open_ledger(ministack, table)


@pytest.mark.parametrize("number", [0, -3, 2**63, 10**37, 60.5, 0.1, 1e-9, math.pi, -2.5e20])
def test_numbers_come_back_as_they_were(ledger: DynamodbLedger, ministack: str, table: str, number: float) -> None:
    ledger.put([])
    ledger._table.for_writing()
    client_of(ministack).put_item(TableName=table, Item=to_wire({"pk": "a", "did": "b", "n": number}))
    found = client_of(ministack).get_item(TableName=table, Key=to_wire({"pk": "a", "did": "b"}), ConsistentRead=True)
    back = from_wire(found["Item"])["n"]
    assert (type(back), back) == (int if number == int(number) else float, number)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="is no number that DynamoDB has"):
        to_wire({"n": number})


PLAIN = st.none() | st.booleans() | st.integers(-(10**37), 10**37) | st.text(max_size=20)
VALUES = PLAIN | st.dictionaries(st.text(max_size=5), PLAIN, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5))
def test_values_are_typed_as_boto3_types_them(values: dict[str, Any]) -> None:
    writer = TypeSerializer()
    typed = to_wire(values)
    assert typed == {name: writer.serialize(value) for name, value in values.items()}
    assert from_wire(typed) == values


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-100, max_value=1e100))
def test_a_float_is_its_shortest_decimal(number: float) -> None:
    typed = to_wire({"n": number})
    assert Decimal(typed["n"]["N"]) == Decimal(str(number))
    assert float(from_wire(typed)["n"]) == number


class TestCutting:
    """An item has at most 400 KB."""

    @pytest.mark.parametrize(
        ("changes", "cut"),
        [
            ({}, "records_seen_by_collection"),
            ({"error_headers": {f"x-{n}": "y" * 90 for n in range(5000)}}, "records_seen_by_collection,error_headers"),
            (
                {"records_by_type": {f"org.example.{'y' * 200}.t{n}": n for n in range(3000)}},
                "records_seen_by_collection,total_records_by_type,types,records_by_type",
            ),
            (
                {
                    "records_by_type": {f"org.example.{'y' * 200}.t{n}": n for n in range(750)},
                    "records_seen_by_collection": None,
                },
                "total_records_by_type",
            ),
        ],
        ids=["collections", "headers", "counts too", "only the old names"],
    )
    def test_to_the_largest_entries(
        self, ministack: str, table: str, ledger: DynamodbLedger, changes: dict[str, Any], cut: str
    ) -> None:
        large = LedgerItem(backfill="study", shard=SHARD, seq=3, result=replace(BUSY, **changes))
        ledger.put([large, item("did:plc:a", 1)])
        [found] = [one for one in dids_of(ministack, table) if "cut" in one]
        assert found["cut"] == cut
        assert found["records_total"] == large.result.records_total, "the whole number"
        kept = ledger.item(SHARD, "did:plc:busy")
        assert kept == ledger.as_kept(large)
        for name in ("records_seen_by_collection", "records_by_type"):
            some, every = getattr(kept.result, name), getattr(large.result, name)
            if every and name in cut.split(","):
                assert some == dict(sorted(every.items(), key=lambda pair: -pair[1])[: len(some)])
            else:
                assert some == every
        assert 300_000 < wire_bytes(to_item(large)) <= 400 * 1024

    def test_a_summary_too(self, ledger: DynamodbLedger) -> None:
        rows = {f"org.example.{'x' * 200}.c{number}": number for number in range(3000)}
        ledger.put_summary(SHARD, ShardSummary(outcomes={"complete": 3}, rows=rows, seq=4))
        kept = ledger.summaries()[SHARD]
        assert (kept.outcomes, kept.seq) == ({"complete": 3}, 4)
        assert 1000 < len(kept.rows) < 3000
        assert min(kept.rows.values()) == 3000 - len(kept.rows), "the largest"

    def test_the_bound_is_met_from_below(self) -> None:
        seen = {f"c{number}": number for number in range(30_000)}
        sizes = []
        for more in range(0, 3000, 300):
            large = replace(BUSY, records_by_type={}, records_seen_by_collection={**seen, "x" * more: 10**9})
            one = LedgerItem(backfill="study", shard=SHARD, seq=3, result=large)
            assert as_kept(as_kept(one)) == as_kept(one)
            sizes.append(wire_bytes(to_item(one)))
        assert max(sizes) <= 400 * 1024


def wire_bytes(value: Any) -> int:
    """What DynamoDB counts, or a little more."""
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("S", "N", "BOOL", "NULL", "M"):
        ((kind, inner),) = value.items()
        if kind == "M":
            return 3 + sum(1 + len(name.encode()) + wire_bytes(one) for name, one in inner.items())
        return {"S": lambda: len(inner.encode()), "N": lambda: len(inner) // 2 + 2}.get(kind, lambda: 1)()
    return sum(len(name.encode()) + wire_bytes(one) for name, one in value.items())
