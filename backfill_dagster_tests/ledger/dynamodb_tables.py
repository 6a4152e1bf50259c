"""A table of one's own in a server on loopback, and ledgers over it that never wait for real."""

from __future__ import annotations

import random
import uuid
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.ledger import DynamodbLedger
from backfill_dagster.ledger.dynamodb_patience import Patience
from backfill_dagster.ledger.dynamodb_table import DynamodbTable

REGION = "us-east-1"


def table_name() -> str:
    """One that nobody has used."""
    return f"ledger-{uuid.uuid4().hex[:12]}"


def impatient(**bounds: Any) -> Patience:
    """Patience that tries as often as a real one, at once."""
    return Patience(**({"sleep": lambda seconds: None, "random": random.Random(7).random} | bounds))


def open_table(url: str, name: str, **options: Any) -> DynamodbTable:
    """A table that the first write creates."""
    options = {"create": True, "patience": impatient()} | options
    return DynamodbTable(name, AwsPlace(REGION, url), **options)


def open_ledger(url: str, name: str, backfill: str = "study", **options: Any) -> DynamodbLedger:
    """A ledger over such a table."""
    return DynamodbLedger(open_table(url, name, **options), backfill)


def client_of(url: str) -> Any:
    """boto3's own."""
    return aws_client("dynamodb", AwsPlace(REGION, url))


def raw(url: str, table: str) -> list[dict[str, Any]]:
    """Everything in the table, as boto3 itself reads it."""
    reader = TypeDeserializer()
    found = client_of(url).scan(TableName=table, ConsistentRead=True)["Items"]
    return [{name: reader.deserialize(value) for name, value in one.items()} for one in found]


def dids_of(url: str, table: str) -> list[dict[str, Any]]:
    """The items of DIDs among it."""
    return [one for one in raw(url, table) if "outcome" in one]
