"""Retry marks in a DynamoDB table: items of their own under `<name>#retry`, each a conditional single write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backfill_dagster.ledger.dynamodb_items import did_key, item_pk, unreadable
from backfill_dagster.ledger.dynamodb_requests import Key, Requests, WireItem, side_by_side, wire_key
from backfill_dagster.ledger.dynamodb_table import PARTITION_KEY, SORT_KEY
from backfill_dagster.ledger.dynamodb_wire import clean_text, from_wire

_BETWEEN = "#"
_AFTER = "$"
"""The character after `#`: no mark of a shard sorts behind `<shard>$`."""

_HIGHER = {"ConditionExpression": "attribute_not_exists(#pk) OR #seq < :seq"}


class DynamodbMarks:
    """The marks of one backfill."""

    def __init__(self, requests: Requests, backfill: str) -> None:
        self._requests = requests
        self._backfill = backfill
        self._pk = f"{backfill}#retry"

    def put(self, shard: str, did_seqs: Mapping[str, int]) -> None:
        """Mark DIDs; of two marks the one with the higher seq stays, which a lost reply doesn't change."""
        if not did_seqs:
            return
        self._requests.table.for_writing()

        def mark(pair: tuple[str, int]) -> None:
            did, seq = pair
            self._requests.ask_if(
                "write a retry mark in",
                "put_item",
                Item={
                    **wire_key(self._key(shard, did)),
                    "shard": {"S": shard},
                    "real_did": {"S": clean_text(did)},
                    "seq": {"N": str(seq)},
                },
                ExpressionAttributeNames={"#pk": PARTITION_KEY, "#seq": "seq"},
                ExpressionAttributeValues={":seq": {"N": str(seq)}},
                **_HIGHER,
            )

        side_by_side(mark, did_seqs.items())

    def of(self, shard: str) -> dict[str, int]:
        """DID -> seq that its mark answers to."""
        if not self._requests.table.is_there():
            return {}
        found = self._requests.partition(
            "read retry marks in",
            self._pk,
            PARTITION_KEY,
            SORT_KEY,
            "real_did",
            "seq",
            KeyConditionExpression="#pk = :pk AND begins_with(#did, :shard)",
            ExpressionAttributeNames={"#did": SORT_KEY},
            ExpressionAttributeValues={":shard": {"S": shard + _BETWEEN}},
        )
        return dict(map(self._mark, found))

    def shards(self) -> set[str]:
        """The shards with marks: one request for each, however many marks it has."""
        shards: set[str] = set()
        if not self._requests.table.is_there():
            return shards
        behind = "\x00"
        while True:
            found = self._requests.partition(
                "read retry marks in",
                self._pk,
                SORT_KEY,
                Limit=1,
                KeyConditionExpression="#pk = :pk AND #did > :behind",
                ExpressionAttributeNames={"#did": SORT_KEY},
                ExpressionAttributeValues={":behind": {"S": behind}},
            )
            first = next(found, None)
            if first is None:
                return shards
            shard = first[SORT_KEY]["S"].partition(_BETWEEN)[0]
            shards.add(shard)
            behind = shard + _AFTER

    def clear(self, shard: str, dids: Iterable[str]) -> None:
        """Delete the marks whose seq is lower than the DID's item's."""
        marked = self.of(shard)
        asked = {did_key(did) for did in dids if clean_text(did) in marked}
        keys = [(item_pk(self._backfill, shard), key) for key in asked]
        found = self._requests.get_many(keys, SORT_KEY, "seq")
        answers = {one[SORT_KEY]["S"]: one["seq"] for one in found if "N" in one.get("seq", {})}

        def clear(pair: tuple[str, WireItem]) -> None:
            key, seq = pair
            self._requests.ask_if(
                "delete a retry mark in",
                "delete_item",
                Key=wire_key((self._pk, f"{shard}{_BETWEEN}{key}")),
                ConditionExpression="#seq < :seq",
                ExpressionAttributeNames={"#seq": "seq"},
                ExpressionAttributeValues={":seq": seq},
            )

        side_by_side(clear, answers.items())

    def _key(self, shard: str, did: str) -> Key:
        return self._pk, f"{shard}{_BETWEEN}{did_key(did)}"

    def _mark(self, found: WireItem) -> tuple[str, int]:
        try:
            values = from_wire(found)
            if not isinstance(values["real_did"], str) or type(values["seq"]) is not int:
                raise ValueError("real_did is no text or seq no whole number")
            return values["real_did"], values["seq"]
        except (KeyError, ValueError, ArithmeticError) as error:
            raise unreadable(found, self._requests.table, error) from error
