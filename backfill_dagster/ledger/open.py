"""From a config to its ledger and to the leases on PDS hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backfill_dagster.aws import AwsBounds, AwsPlace
from backfill_dagster.config import BackfillConfig, DynamodbStorage
from backfill_dagster.ledger.base import Ledger
from backfill_dagster.ledger.dynamodb import DynamodbLedger
from backfill_dagster.ledger.dynamodb_leases import HOSTS_PK, LEASE_BOUNDS, DynamodbLeaseTable
from backfill_dagster.ledger.dynamodb_table import DynamodbTable
from backfill_dagster.ledger.lease_record import LeaseTable
from backfill_dagster.ledger.sqlite import SqliteLedger
from backfill_dagster.ledger.sqlite_file import SqliteFile
from backfill_dagster.ledger.sqlite_leases import SqliteLeaseTable
from backfill_dagster.ledger.sqlite_schema import LEASE_TABLE

LOCK_FOLDER_VARIABLE = "BACKFILL_LOCK_DIR"

_HOSTS_SCHEMA_VERSION = 1


def open_ledger(config: BackfillConfig, *, read_only: bool = False) -> Ledger:
    """The ledger that the config's `storage` names. Touches no disk and asks no server yet.

    Args:
        config: the validated YAML.
        read_only: for commands that only look: nothing is ever created, read-only folders are fine.
    """
    if isinstance(config.storage, DynamodbStorage):
        return DynamodbLedger(dynamodb_table(config.storage, read_only=read_only), config.name)
    return SqliteLedger(config.ledger_path, config.name, read_only=read_only)


def dynamodb_table(
    storage: DynamodbStorage, *, read_only: bool = False, bounds: AwsBounds | None = None
) -> DynamodbTable:
    """The table that `storage` names; `bounds` are its client's. Asks no server yet."""
    place = AwsPlace(storage.region, storage.endpoint_url)
    return DynamodbTable(storage.table_name, place, create=storage.create_table, read_only=read_only, bounds=bounds)


def lock_folder(environ: Mapping[str, str]) -> Path:
    """Where this user's host leases are: `BACKFILL_LOCK_DIR`, else below `XDG_STATE_HOME`, else `~/.local/state`."""
    if environ.get(LOCK_FOLDER_VARIABLE):
        return Path(environ[LOCK_FOLDER_VARIABLE]).expanduser()
    base = environ.get("XDG_STATE_HOME")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return (Path(base) if base else home / ".local" / "state") / "backfill-dagster" / "locks"


def host_lease_tables(config: BackfillConfig, environ: Mapping[str, str]) -> tuple[LeaseTable, ...]:
    """Where a PDS host has to be leased, in turn: on this machine, for all its configs; with DynamoDB in its table too.

    The table's are for all machines that share it. Touches no disk and asks no server yet.
    """
    own = machine_lease_table(environ)
    if not isinstance(config.storage, DynamodbStorage):
        return (own,)
    return own, DynamodbLeaseTable(dynamodb_table(config.storage, bounds=LEASE_BOUNDS), HOSTS_PK)


def machine_lease_table(environ: Mapping[str, str]) -> SqliteLeaseTable:
    """The leases on PDS hosts in this machine's lock folder."""
    path = lock_folder(environ) / "hosts.sqlite"
    return SqliteLeaseTable(
        SqliteFile(
            path,
            schema=LEASE_TABLE,
            kind="backfill-dagster lease table",
            version=_HOSTS_SCHEMA_VERSION,
            remedy=f"when no run is going, delete {path} (and its -wal and -shm), or set {LOCK_FOLDER_VARIABLE}",
        )
    )
