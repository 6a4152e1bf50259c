"""DID items into a DynamoDB ledger, beside what its server takes of plain BatchWriteItem requests.

The server is ministack on loopback, in this machine's memory: the ratios say what the ledger costs, not what AWS gives.
Raw requests are made by boto3 as it comes, and by the ledger's own client, which doesn't look at every attribute.
"""

from __future__ import annotations

import os
import statistics
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import boto3

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.cli.aws_servers import CREDENTIALS, FOLDER, ministack_server
from backfill_dagster.ledger import DynamodbLedger
from backfill_dagster.ledger.dynamodb_items import to_item
from backfill_dagster.ledger.dynamodb_requests import BATCH_WRITES, BATCHES_AT_ONCE
from backfill_dagster.ledger.dynamodb_table import DynamodbTable
from backfill_dagster.model import LedgerItem, Outcome
from benchmarks.logs import outcome_of
from benchmarks.measure import Figure, seconds_of

ITEMS = 2_000
ROUNDS = 5
ASKED = "80 % of raw"


def figures() -> Iterator[Figure]:
    """Raw and ledger by turns, so that whatever else the machine does meets both."""
    with mock.patch.dict(os.environ, CREDENTIALS), ministack_server(Path(__file__).parents[1] / FOLDER) as url:
        place = AwsPlace("us-east-1", url)
        table = DynamodbTable(f"bench-{uuid.uuid4().hex[:8]}", place, create=True)
        ledger = DynamodbLedger(table, "bench")
        ledger.put(_items(0))
        plain = boto3.session.Session().client("dynamodb", region_name=place.region, endpoint_url=url)
        raws = {
            "one thread": (plain, 1),
            f"{BATCHES_AT_ONCE} threads": (plain, BATCHES_AT_ONCE),
            f"{BATCHES_AT_ONCE} threads, the ledger's client": (aws_client("dynamodb", place), BATCHES_AT_ONCE),
        }
        raw_seconds: dict[str, list[float]] = {name: [] for name in raws}
        put_seconds: list[float] = []
        for number in range(1, ROUNDS + 1):
            for shard, (name, (client, threads)) in enumerate(raws.items()):
                wire = [to_item(item) for item in _items(10 * number + shard)]
                raw_seconds[name].append(seconds_of(_raw(client, table.name, wire, threads=threads)))
            items = _items(10 * number + len(raws))
            put_seconds.append(seconds_of(partial(ledger.put, items)))
            assert len(ledger.seqs(items[0].shard)) == ITEMS
    medians = {name: statistics.median(taken) for name, taken in raw_seconds.items()}
    for name, seconds in medians.items():
        yield Figure(f"ready-made items by BatchWriteItem, {name}", ITEMS, "items", seconds)
    seconds = statistics.median(put_seconds)
    shares = ", ".join(f"{100 * raw / seconds:.0f} %" for raw in medians.values())
    yield Figure(f"DynamoDB ledger's put ({shares} of these)", ITEMS, "items", seconds, asked=ASKED)


def _raw(client: Any, table: str, wire: Sequence[dict[str, Any]], *, threads: int) -> Callable[[], None]:
    """What boto3 does with items that are typed already: no retries, no verification, nothing besides."""
    batches = [
        [{"PutRequest": {"Item": item}} for item in wire[start : start + BATCH_WRITES]]
        for start in range(0, len(wire), BATCH_WRITES)
    ]

    def write_batch(batch: list[dict[str, Any]]) -> None:
        assert not client.batch_write_item(RequestItems={table: batch})["UnprocessedItems"]

    def write() -> None:
        if threads == 1:
            for batch in batches:
                write_batch(batch)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(write_batch, batches))

    return write


def _items(shard: int) -> list[LedgerItem]:
    """Each round has a shard of its own; one DID in ten is one to look at, as it costs an index more."""
    items = []
    for number in range(ITEMS):
        outcome = Outcome.NOT_FOUND if number % 10 == 0 else Outcome.COMPLETE
        result = outcome_of(number, outcome)
        items.append(LedgerItem(backfill="bench", shard=f"bench~{shard:04d}", seq=1, result=result))
    return items
