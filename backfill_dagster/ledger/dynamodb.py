"""The ledger in a DynamoDB table. Schema and creation are in `dynamodb_table.py`, requests in `dynamodb_requests.py`.

DID items are plain batch writes: they derive from the log, and only the holder of the shard's lease writes them. Base
table reads are consistent; an index only tells where to look, as it may lag.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from backfill_dagster.ledger.base import Settled, ShardSummary, check_attention
from backfill_dagster.ledger.dynamodb_items import (
    BUCKETS,
    JSON_MAX_BYTES,
    as_kept,
    attention_pk,
    did_key,
    from_item,
    item_key,
    item_pk,
    largest,
    to_item,
    unreadable,
)
from backfill_dagster.ledger.dynamodb_leases import DynamodbLeaseTable
from backfill_dagster.ledger.dynamodb_marks import DynamodbMarks
from backfill_dagster.ledger.dynamodb_requests import BATCH_READS, Key, Requests, WireItem, side_by_side
from backfill_dagster.ledger.dynamodb_state import DynamodbBinding
from backfill_dagster.ledger.dynamodb_table import ATTENTION_INDEX, DID_INDEX, PARTITION_KEY, SORT_KEY, DynamodbTable
from backfill_dagster.ledger.dynamodb_wire import clean_text, from_wire, to_wire
from backfill_dagster.model import LedgerItem, Outcome, Wanted

PAGE_ITEMS = 1000
"""Items asked for at a time; DynamoDB gives a MiB at most."""

_KEY_NAMES = (PARTITION_KEY, SORT_KEY)


class DynamodbLedger:
    """`Ledger` of the backfill `backfill` in a table, which may hold other backfills too."""

    def __init__(self, table: DynamodbTable, backfill: str) -> None:
        """Asks no server."""
        self._table = table
        self._backfill = backfill
        self._requests = Requests(table)
        self._marks = DynamodbMarks(self._requests, backfill)
        self._binding = DynamodbBinding(self._requests, backfill)
        self._leases = DynamodbLeaseTable(table, f"{backfill}#leases")

    @property
    def leases(self) -> DynamodbLeaseTable:
        """Leases in the same table."""
        return self._leases

    def put(self, items: Sequence[LedgerItem], *, over: Mapping[str, int] | None = None) -> None:
        """Write items, 25 at a time; of one call the highest seq of a DID stays, of two calls the later one.

        With `over` each is a write of its own, on the condition that the item there is the one named.
        """
        strangers = {item.backfill for item in items} - {self._backfill}
        if strangers:
            raise ValueError(f"items of {sorted(strangers)} for the ledger of {self._backfill}")
        if not items:
            return
        self._table.for_writing()
        self._binding.note_items()
        if over is None:
            self._requests.write(_newest(items), to_item)
        else:
            side_by_side(partial(self._put_over, over), items)

    def _put_over(self, over: Mapping[str, int], item: LedgerItem) -> None:
        """One conditional write. Refused, it is somebody else's item that stands, or this one after a lost reply."""
        seq = over.get(clean_text(item.result.did))
        condition: dict[str, Any] = {
            "ConditionExpression": "attribute_not_exists(#pk)",
            "ExpressionAttributeNames": {"#pk": PARTITION_KEY},
        }
        if seq is not None:
            condition = {
                "ConditionExpression": "#seq = :over",
                "ExpressionAttributeNames": {"#seq": "seq"},
                "ExpressionAttributeValues": {":over": {"N": str(seq)}},
            }
        self._requests.ask_if("write an item to", "put_item", Item=to_item(item), **condition)

    def as_kept(self, item: LedgerItem) -> LedgerItem:
        """The item cut to what DynamoDB takes (400 KB), as nearly none has to be."""
        return as_kept(item)

    def items(self, shard: str) -> Iterator[LedgerItem]:
        """The shard's items by DID, page by page."""
        if self._table.is_there():
            found = self._requests.partition("read items of", item_pk(self._backfill, shard), Limit=PAGE_ITEMS)
            yield from map(self._item, found)

    def item(self, shard: str, did: str) -> LedgerItem | None:
        """One item."""
        if not self._table.is_there():
            return None
        found = self._requests.get("read an item of", (item_pk(self._backfill, shard), did_key(did)))
        return None if found is None else self._item(found)

    def find(self, did: str) -> list[LedgerItem]:
        """The DID's items, by shard; one of the last second may not be in the index yet."""
        return self._of_did(did, f"{self._backfill}#")

    def find_in_all(self, did: str) -> list[LedgerItem]:
        """The DID's items in every backfill of the table, by backfill and shard."""
        return self._of_did(did, "")

    def seqs(self, shard: str) -> dict[str, int]:
        """DID -> seq."""
        if not self._table.is_there():
            return {}
        names = (*_KEY_NAMES, "real_did", "seq")
        return dict(map(self._seq, self._requests.partition("read items of", item_pk(self._backfill, shard), *names)))

    def summaries(self) -> dict[str, ShardSummary]:
        """Shard -> summary."""
        if not self._table.is_there():
            return {}
        return dict(map(self._summary, self._requests.partition("read summaries in", f"{self._backfill}#shards")))

    def put_summary(self, shard: str, summary: ShardSummary) -> None:
        """Write a summary over one of the same or a lower seq; a lost reply changes nothing about that."""
        self._table.for_writing()
        said = summary.settled
        values = {
            PARTITION_KEY: f"{self._backfill}#shards",
            SORT_KEY: shard,
            "seq": summary.seq,
            "outcomes": dict(summary.outcomes),
            # A namespace may have any number of record types; outcomes are few.
            "rows": largest(summary.rows, JSON_MAX_BYTES - 1024),
            "settled": said
            and {"scope": said.wanted.scope, "refresh": said.wanted.refresh, "generation": said.generation},
        }
        self._requests.ask_if(
            "write a summary to",
            "put_item",
            Item=to_wire(values),
            ConditionExpression="attribute_not_exists(#pk) OR #seq <= :seq",
            ExpressionAttributeNames={"#pk": PARTITION_KEY, "#seq": "seq"},
            ExpressionAttributeValues={":seq": {"N": str(summary.seq)}},
        )

    def attention(self, outcome: Outcome, limit: int) -> list[LedgerItem]:
        """Items with this outcome, by shard and DID. ValueError when none needs attention."""
        check_attention(outcome)
        if not self._table.is_there():
            return []
        pks = [attention_pk(self._backfill, outcome, bucket) for bucket in range(BUCKETS)]
        buckets = [self._indexed(ATTENTION_INDEX, "attention", pk, Limit=min(limit, PAGE_ITEMS)) for pk in pks]
        keys = map(_key, heapq.merge(*buckets, key=lambda one: one["shard_did"]["S"]))
        found: list[LedgerItem] = []
        while len(found) < limit and (some := list(islice(keys, min(limit - len(found), BATCH_READS)))):
            # What the index says of a DID may be a moment old: the items themselves decide.
            items = map(self._item, self._requests.get_many(some))
            found += [item for item in items if item.result.outcome is outcome]
        return sorted(found, key=lambda item: (item.shard, did_key(item.result.did)))[:limit]

    def mark_for_retry(self, shard: str, did_seqs: Mapping[str, int]) -> None:
        """Mark DIDs; of two marks the one with the higher seq stays."""
        self._marks.put(shard, did_seqs)

    def retry_marks(self, shard: str) -> dict[str, int]:
        """DID -> seq that the mark answers to."""
        return self._marks.of(shard)

    def marked_shards(self) -> set[str]:
        """Shards with marks."""
        return self._marks.shards()

    def clear_marks(self, shard: str, dids: Iterable[str]) -> None:
        """Delete the marks whose seq is lower than the DID's item's."""
        self._marks.clear(shard, dids)

    def state_id(self) -> str | None:
        """The state that this ledger is bound to."""
        return self._binding.state_id()

    def bind_state(self, state_id: str) -> None:
        """Bind it, if it isn't."""
        self._binding.bind(state_id)

    def close(self) -> None:
        """Nothing to close: boto3's clients are the process's."""

    def _of_did(self, did: str, pk_prefix: str) -> list[LedgerItem]:
        if not self._table.is_there():
            return []
        keys = [_key(one) for one in self._indexed(DID_INDEX, SORT_KEY, did_key(did))]
        found = self._requests.get_many([key for key in keys if key[0].startswith(pk_prefix)])
        return sorted(map(self._item, found), key=lambda item: (item.backfill, item.shard))

    def _indexed(self, index: str, name: str, value: str, **options: Any) -> Iterator[WireItem]:
        """The keys under a hash key of an index, by its range key."""
        return self._requests.query(
            "read items of",
            IndexName=index,
            KeyConditionExpression="#hash = :value",
            ExpressionAttributeNames={"#hash": name},
            ExpressionAttributeValues={":value": {"S": value}},
            **options,
        )

    def _item(self, found: WireItem) -> LedgerItem:
        return from_item(found, self._table)

    def _seq(self, found: WireItem) -> tuple[str, int]:
        try:
            values = from_wire(found)
            did, seq = values.get("real_did", values[SORT_KEY]), values["seq"]
            if not isinstance(did, str) or type(seq) is not int:
                raise ValueError("seq is no whole number")
        except (KeyError, ValueError, ArithmeticError) as error:
            raise unreadable(found, self._table, error) from error
        return did, seq

    def _summary(self, found: WireItem) -> tuple[str, ShardSummary]:
        try:
            values = from_wire(found)
            said = values["settled"]
            counts = chain(values["outcomes"].values(), values["rows"].values(), (values["seq"],))
            if not all(type(count) is int for count in counts):
                raise ValueError("a count is no whole number")
            settled = said and Settled(Wanted(said["scope"], said["refresh"]), said["generation"])
        except (KeyError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise unreadable(found, self._table, error) from error
        return values[SORT_KEY], ShardSummary(values["outcomes"], values["rows"], values["seq"], settled)


def _key(found: WireItem) -> Key:
    return found[PARTITION_KEY]["S"], found[SORT_KEY]["S"]


def _newest(items: Iterable[LedgerItem]) -> Sequence[LedgerItem]:
    """One item of each key, that of the highest seq; the first of several."""
    newest: dict[Key, LedgerItem] = {}
    for item in items:
        key = item_key(item)
        if key not in newest or newest[key].seq < item.seq:
            newest[key] = item
    return list(newest.values())
