"""The contract of a ledger on another server that speaks DynamoDB's protocol: what one gets wrong the other may not."""

from __future__ import annotations

import pytest

from backfill_dagster.ledger import DynamodbLedger
from backfill_dagster_tests.ledger.contract import LedgerContract, MakeLedger
from backfill_dagster_tests.ledger.dynamodb_tables import open_ledger, table_name

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")


@pytest.fixture
def make_ledger(dynalite: str) -> MakeLedger:
    name = table_name()

    def make(backfill: str) -> DynamodbLedger:
        return open_ledger(dynalite, name, backfill)

    return make


class TestOnDynalite(LedgerContract):
    """The same contract as SQLite's."""
