"""From a config to its ledger, and from the environment to this machine's host leases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backfill_dagster.errors import UsageError
from backfill_dagster.ledger.base import Ledger
from backfill_dagster.ledger.lease_record import LeaseTable
from backfill_dagster.ledger.sqlite import SqliteLedger
from backfill_dagster.ledger.sqlite_file import SqliteFile
from backfill_dagster.ledger.sqlite_leases import SqliteLeaseTable
from backfill_dagster.ledger.sqlite_schema import LEASE_TABLE

if TYPE_CHECKING:
    from backfill_dagster.config import BackfillConfig

LOCK_FOLDER_VARIABLE = "BACKFILL_LOCK_DIR"

_HOSTS_SCHEMA_VERSION = 1


def open_ledger(config: BackfillConfig, *, read_only: bool = False) -> Ledger:
    """The ledger that the config's `storage` names. Touches no disk yet.

    Args:
        config: the validated YAML.
        read_only: for commands that only look: nothing is ever created, read-only folders are fine.

    Raises:
        UsageError: a kind of ledger that this version doesn't have.
    """
    if config.storage.type != "sqlite":
        raise UsageError(f"storage.type {config.storage.type}: only sqlite is available in this version")
    return SqliteLedger(config.ledger_path, config.name, read_only=read_only)


def lock_folder(environ: Mapping[str, str]) -> Path:
    """Where this user's host leases are: `BACKFILL_LOCK_DIR`, else below `XDG_STATE_HOME`, else `~/.local/state`."""
    if environ.get(LOCK_FOLDER_VARIABLE):
        return Path(environ[LOCK_FOLDER_VARIABLE]).expanduser()
    base = environ.get("XDG_STATE_HOME")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return (Path(base) if base else home / ".local" / "state") / "backfill-dagster" / "locks"


def host_lease_table(environ: Mapping[str, str]) -> LeaseTable:
    """The leases on PDS hosts, over all configs of this machine. Touches no disk yet."""
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
