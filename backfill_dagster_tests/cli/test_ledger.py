"""`backfill ledger`: the table made, and what a ledger answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.config import load_config
from backfill_dagster.ledger import Lease
from backfill_dagster.state import open_state
from backfill_dagster_tests.cli.command import Command
from backfill_dagster_tests.cli.network import Network
from backfill_dagster_tests.ledger.dynamodb_tables import REGION, client_of, table_name

pytestmark = pytest.mark.usefixtures("aws_environ")
