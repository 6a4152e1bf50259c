"""One DynamoDB table of ours: its schema, created on request, verified once before it is used.

What is in it is the business of `dynamodb.py`, `dynamodb_marks.py` and `dynamodb_leases.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backfill_dagster.aws import AwsBounds, AwsError, AwsPlace, aws_client, aws_errors
from backfill_dagster.errors import StateError
from backfill_dagster.ledger.dynamodb_patience import Patience

PARTITION_KEY = "pk"
SORT_KEY = "did"

DID_INDEX = "did-index"
ATTENTION_INDEX = "attention-index"

INDEXES = {DID_INDEX: (SORT_KEY, "finished_at"), ATTENTION_INDEX: ("attention", "shard_did")}
"""Name -> hash and range key. They hold keys only: whole items are read from the table itself, which never lags."""

_KEY = (PARTITION_KEY, SORT_KEY)

_READY_SECONDS_MAX = 300.0
_LOOK_SECONDS = 1.0
_READY = ("ACTIVE", "UPDATING")
"""A table that is being updated can be used."""


class DynamodbTable:
    """A table that is described when it is first needed; for use from any thread.

    Attributes:
        name: the table's.
        patience: how long whatever the table refuses for the moment is tried again.
    """

    def __init__(
        self,
        name: str,
        place: AwsPlace,
        *,
        create: bool = False,
        read_only: bool = False,
        patience: Patience | None = None,
        bounds: AwsBounds | None = None,
    ) -> None:
        """Asks no server.

        Args:
            name: the table's.
            place: region and endpoint, or where to find them.
            create: the first write creates the table where there is none; reading finds nothing until then.
            read_only: never write.
            patience: see `patience`.
            bounds: of its client.
        """
        self.name = name
        self.patience = patience or Patience()
        self._place = place
        self._may_create = create
        self._read_only = read_only
        self._bounds = bounds
        self._client: Any = None
        self._is_verified = False
        self._lock = threading.RLock()

    @property
    def client(self) -> Any:
        """boto3's client. AwsError when there is no region, or a profile that isn't there."""
        if self._client is None:
            self._client = self.client_within(self._bounds)
        return self._client

    def client_within(self, bounds: AwsBounds | None) -> Any:
        """Another client of the same service, for requests that have bounds of their own. AwsError as `client`."""
        with aws_errors(f"open the DynamoDB table {self.name}"):
            return aws_client("dynamodb", self._place, bounds)

    def __str__(self) -> str:
        return f"DynamoDB table {self.name} at {self.client.meta.endpoint_url} ({self.client.meta.region_name})"

    def is_there(self) -> bool:
        """Whether it can be read; False where it is missing and may be created by whoever writes first.

        Raises:
            StateError: it is missing, isn't ready in time, or has another schema.
        """
        with self._lock:
            if self._is_verified:
                return True
            found = self._described()
            if found is None:
                if not self._may_create:
                    raise AwsError(
                        f"{self}: no such table; `backfill ledger create CONFIG` creates it, or "
                        "storage.create_table: true, or correct table_name, region and endpoint_url",
                        code="ResourceNotFoundException",
                    )
                return False
            self._verify(found)
            return True

    def for_writing(self) -> None:
        """Make sure that it can be written, creating it where that was asked for. StateError when it can't be."""
        if self._read_only:
            raise StateError(f"{self} was opened to be read only; nothing was written")
        with self._lock:
            if not self.is_there():
                self.create()

    def create(self) -> bool:
        """Create the table (billed by request), wait until it is ready, verify it.

        Returns:
            False when it was there already.

        Raises:
            StateError: it can't be created, isn't ready in time, or is there and has another schema.
        """
        with self._lock:
            created = True
            try:
                with aws_errors(f"create the {self}"):
                    self.client.create_table(TableName=self.name, BillingMode="PAY_PER_REQUEST", **_schema())
            except AwsError as error:
                if error.code != "ResourceInUseException":  # there already, or just made by another process
                    raise
                created = False
            found = self._described()
            if found is None:
                raise StateError(f"{self} went away while it was created; see who deletes it, then start again")
            self._verify(found)
            return created

    def _described(self) -> Mapping[str, Any] | None:
        """Its description when it is ready; None where there is no such table."""
        waited_seconds, found = 0.0, self._description()
        while found is not None and (unready := list(_unready(found))):
            if waited_seconds >= _READY_SECONDS_MAX:
                raise StateError(
                    f"{self}: {', '.join(unready)} after {waited_seconds:.0f} s; wait until it is ACTIVE, then start "
                    "again"
                )
            self.patience.sleep(_LOOK_SECONDS)
            waited_seconds += _LOOK_SECONDS
            found = self._description()
        return found

    def _description(self) -> Mapping[str, Any] | None:
        try:
            with aws_errors(f"look at the {self}"):
                table: Mapping[str, Any] = self.client.describe_table(TableName=self.name)["Table"]
                return table
        except AwsError as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise

    def _verify(self, found: Mapping[str, Any]) -> None:
        differences = list(_differences(found))
        if differences:
            raise StateError(
                f"{self} is not one of ours: {'; '.join(differences)}; take another storage.table_name and create it "
                "with `backfill ledger create CONFIG`"
            )
        self._is_verified = True


def _schema() -> dict[str, Any]:
    names = sorted({*_KEY, *(name for keys in INDEXES.values() for name in keys)})
    return {
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
        "KeySchema": _key_schema(_KEY),
        "GlobalSecondaryIndexes": [
            {"IndexName": index, "KeySchema": _key_schema(keys), "Projection": {"ProjectionType": "KEYS_ONLY"}}
            for index, keys in INDEXES.items()
        ],
    }


def _key_schema(names: Sequence[str]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=True)]


def _unready(found: Mapping[str, Any]) -> Iterator[str]:
    """What is still being made, in words."""
    if found.get("TableStatus", "ACTIVE") not in _READY:
        yield f"it is {found['TableStatus']}"
    for index in found.get("GlobalSecondaryIndexes", ()):
        if index["IndexName"] in INDEXES and index.get("IndexStatus", "ACTIVE") not in _READY:
            yield f"its index {index['IndexName']} is {index['IndexStatus']}"


def _differences(found: Mapping[str, Any]) -> Iterator[str]:
    """What of it isn't as wanted, in words. Indexes of others and what an index projects besides are no difference."""
    types = {one["AttributeName"]: one["AttributeType"] for one in found.get("AttributeDefinitions", ())}
    yield from _key_differences("its key", found["KeySchema"], _KEY, types)
    indexes = {one["IndexName"]: one["KeySchema"] for one in found.get("GlobalSecondaryIndexes", ())}
    for index, keys in INDEXES.items():
        if index in indexes:
            yield from _key_differences(f"the key of its index {index}", indexes[index], keys, types)
        else:
            yield f"it has no index {index} on ({', '.join(keys)})"


def _key_differences(
    what: str, found: Sequence[Mapping[str, str]], wanted: Sequence[str], types: Mapping[str, str]
) -> Iterator[str]:
    names = [part["AttributeName"] for part in sorted(found, key=lambda part: part["KeyType"] != "HASH")]
    if names != list(wanted):
        yield f"{what} is ({', '.join(names)}), wanted ({', '.join(wanted)})"
        return
    for name in wanted:
        if types.get(name) != "S":
            yield f"{what} has {name} of type {types.get(name)}, wanted S"
