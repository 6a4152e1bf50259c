"""One item per DID to look things up in, retry marks, and the leases that keep runs out of each other's way."""

from backfill_dagster.ledger.base import Ledger, Settled, ShardSummary
from backfill_dagster.ledger.behind import items_behind
from backfill_dagster.ledger.counts import outcome_counts
from backfill_dagster.ledger.dynamodb import DynamodbLedger
from backfill_dagster.ledger.item import item_attributes, item_from_attributes
from backfill_dagster.ledger.lease import Lease
from backfill_dagster.ledger.lease_record import LeaseRecord, LeaseTable
from backfill_dagster.ledger.open import (
    dynamodb_table,
    host_lease_tables,
    lock_folder,
    machine_lease_table,
    open_ledger,
)
from backfill_dagster.ledger.sqlite import SqliteLedger

__all__ = [
    "DynamodbLedger",
    "Lease",
    "LeaseRecord",
    "LeaseTable",
    "Ledger",
    "Settled",
    "ShardSummary",
    "SqliteLedger",
    "dynamodb_table",
    "host_lease_tables",
    "item_attributes",
    "item_from_attributes",
    "items_behind",
    "lock_folder",
    "machine_lease_table",
    "open_ledger",
    "outcome_counts",
]
