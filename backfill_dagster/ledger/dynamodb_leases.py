"""Leases in a DynamoDB table: a backfill's shards under `<name>#leases`, PDS hosts under `#hosts`.

They have clients of their own: what may take minutes elsewhere has to be known in seconds here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

from backfill_dagster.aws import AwsBounds
from backfill_dagster.ledger.dynamodb_items import unreadable
from backfill_dagster.ledger.dynamodb_requests import Requests, WireItem
from backfill_dagster.ledger.dynamodb_table import PARTITION_KEY, SORT_KEY, DynamodbTable
from backfill_dagster.ledger.dynamodb_wire import clean, from_wire, to_wire
from backfill_dagster.ledger.lease_record import LeaseRecord

HOSTS_PK = "#hosts"
"""A backfill's name is never empty, so no backfill has this one."""

LEASE_BOUNDS = AwsBounds(connect_seconds=5, read_seconds=10, attempts_max=3)
"""Of taking a lease, letting it go, and asking who holds one: a table that hangs ends it after half a minute or so."""

_PATIENCE_SECONDS = 60.0
"""How long what the table refuses for the moment is tried again."""

_TYPES: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
}

_FIELDS = {field.name: str(field.type) for field in fields(LeaseRecord)}

_AS_IT_WAS = " AND ".join(f"#n{number} = :v{number}" for number in range(len(_FIELDS)))
_NAMES = {f"#n{number}": name for number, name in enumerate(_FIELDS)}


class DynamodbLeaseTable:
    """`LeaseTable` under one partition key; compare-and-set is one conditional PutItem."""

    def __init__(self, table: DynamodbTable, pk: str, *, requests: Requests | None = None) -> None:
        """Asks no server; `requests` are on the table, within bounds of their own."""
        self._table = table
        self._pk = pk
        patience = replace(table.patience, seconds_max=_PATIENCE_SECONDS)
        self._requests = requests or Requests(table, bounds=LEASE_BOUNDS, patience=patience)

    def hurried(self, seconds: float) -> DynamodbLeaseTable:
        """The same leases by another client: one try a request, which waits so long for an answer."""
        bounds = AwsBounds(connect_seconds=seconds, read_seconds=seconds, attempts_max=1)
        self._table.client_within(bounds)  # made now: to find credentials may take longer than there is later
        requests = Requests(self._table, bounds=bounds, patience=replace(self._table.patience, tries_max=1))
        return DynamodbLeaseTable(self._table, self._pk, requests=requests)

    def read(self, name: str) -> LeaseRecord | None:
        """The record as it is now; None when there is none, or no table yet."""
        if not self._table.is_there():
            return None
        found = self._requests.get("read a lease in", (self._pk, name))
        return None if found is None else self._record(found)

    def compare_and_set(self, name: str, expected: LeaseRecord | None, new: LeaseRecord) -> bool:
        """Write `new` if the record is exactly `expected`. ValueError when it is another name's.

        False may follow a lost reply of one's own success: `Lease` reads the record and knows it by its token.
        """
        if new.name != name:
            raise ValueError(f"a record of {new.name} under the name {name}")
        self._table.for_writing()
        if expected is None:
            condition: dict[str, Any] = {
                "ConditionExpression": "attribute_not_exists(#pk)",
                "ExpressionAttributeNames": {"#pk": PARTITION_KEY},
            }
        else:
            values = to_wire(clean(asdict(expected)))
            condition = {
                "ConditionExpression": _AS_IT_WAS,
                "ExpressionAttributeNames": _NAMES,
                "ExpressionAttributeValues": {f":v{number}": values[field] for number, field in enumerate(_FIELDS)},
            }
        item = to_wire(clean(asdict(new)) | {PARTITION_KEY: self._pk, SORT_KEY: name})
        return self._requests.ask_if("write a lease in", "put_item", Item=item, **condition)

    def holders(self) -> list[LeaseRecord]:
        """The records that aren't released, by name."""
        if not self._table.is_there():
            return []
        found = self._requests.partition("read leases in", self._pk)
        return [record for record in map(self._record, found) if not record.released]

    def close(self) -> None:
        """Nothing to close: boto3's clients are the process's."""

    def _record(self, found: WireItem) -> LeaseRecord:
        try:
            values = from_wire(found)
            for name, kind in _FIELDS.items():
                if not _TYPES[kind](values[name]):
                    raise ValueError(f"{name} is {str(values[name])[:60]!r}, not a {kind}")
            own = {name: values[name] for name in _FIELDS} | {"lease_seconds": float(values["lease_seconds"])}
            return LeaseRecord(**own)
        except (KeyError, ValueError, ArithmeticError) as error:
            raise unreadable(found, self._table, error) from error
