"""Which ledger and which host leases a config and an environment mean."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backfill_dagster.errors import StateError, UsageError
from backfill_dagster.ledger import host_lease_tables, lock_folder, machine_lease_table, open_ledger
from backfill_dagster_tests.ledger.contract import lease


def config(tmp_path: Path, kind: str = "sqlite") -> Any:
    storage = SimpleNamespace(type=kind)
    return cast(Any, SimpleNamespace(storage=storage, name="study", ledger_path=tmp_path / "ledger.sqlite"))


def test_a_sqlite_ledger(tmp_path: Path) -> None:
    ledger = open_ledger(config(tmp_path))
    assert list(tmp_path.iterdir()) == []
    ledger.bind_state("x")
    ledger.close()
    reader = open_ledger(config(tmp_path), read_only=True)
    assert reader.state_id() == "x"
    reader.bind_state("x")
    with pytest.raises(StateError, match="belongs to the state x of study, not to y"):
        reader.bind_state("y")


def test_dynamodb_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"storage\.type dynamodb: only sqlite is available"):
        open_ledger(config(tmp_path, "dynamodb"))


def test_where_host_leases_are() -> None:
    assert lock_folder({"BACKFILL_LOCK_DIR": "/locks", "XDG_STATE_HOME": "/xdg", "HOME": "/home/a"}) == Path("/locks")
    assert lock_folder({"XDG_STATE_HOME": "/xdg", "HOME": "/home/a"}) == Path("/xdg/backfill-dagster/locks")
    assert lock_folder({"HOME": "/home/a"}) == Path("/home/a/.local/state/backfill-dagster/locks")
    assert lock_folder({}) == Path.home() / ".local/state/backfill-dagster/locks"


def test_host_leases_are_one_file_for_all(tmp_path: Path) -> None:
    environ = {"BACKFILL_LOCK_DIR": str(tmp_path / "locks")}
    [table] = host_lease_tables(config(tmp_path), environ)
    assert table.read("pds.example") is None
    assert list(tmp_path.iterdir()) == []
    assert table.compare_and_set(lease().name, None, lease()) is True
    assert machine_lease_table(environ).compare_and_set(lease().name, None, lease()) is False
    assert (tmp_path / "locks" / "hosts.sqlite").exists()
    table.close()
