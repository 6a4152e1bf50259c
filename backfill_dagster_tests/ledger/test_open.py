"""Which ledger and which host leases a config and an environment mean."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backfill_dagster.config import DynamodbStorage
from backfill_dagster.errors import StateError
from backfill_dagster.ledger import host_lease_tables, lock_folder, machine_lease_table, open_ledger
from backfill_dagster_tests.ledger.contract import lease
from backfill_dagster_tests.ledger.dynamodb_tables import REGION, table_name


def in_dynamodb(tmp_path: Path, url: str, name: str, *, create_table: bool = True) -> Any:
    storage = DynamodbStorage(
        type="dynamodb", table_name=name, region=REGION, endpoint_url=url, create_table=create_table
    )
    return cast(Any, SimpleNamespace(storage=storage, name="study"))


def config(tmp_path: Path) -> Any:
    storage = SimpleNamespace(type="sqlite")
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


@pytest.mark.parametrize("read_only", [False, True])
def test_a_dynamodb_ledger_by_its_config(tmp_path: Path, ministack: str, aws_environ: None, read_only: bool) -> None:
    ledger = open_ledger(in_dynamodb(tmp_path, ministack, table_name()), read_only=read_only)
    assert ledger.state_id() is None
    if read_only:
        with pytest.raises(StateError, match="was opened to be read only"):
            ledger.bind_state("x")
    else:
        ledger.bind_state("x")
        assert ledger.state_id() == "x"
    ledger.close()


@pytest.mark.parametrize("create_table", [False, True])
def test_opening_asks_no_server(tmp_path: Path, create_table: bool) -> None:
    nowhere = in_dynamodb(tmp_path, "http://127.0.0.1:9", "results", create_table=create_table)
    open_ledger(nowhere).close()
    for table in host_lease_tables(nowhere, {"BACKFILL_LOCK_DIR": str(tmp_path / "locks")}):
        table.close()
    assert list(tmp_path.iterdir()) == []


def test_where_host_leases_are() -> None:
    assert lock_folder({"BACKFILL_LOCK_DIR": "/locks", "XDG_STATE_HOME": "/xdg", "HOME": "/home/a"}) == Path("/locks")
    assert lock_folder({"XDG_STATE_HOME": "/xdg", "HOME": "/home/a"}) == Path("/xdg/backfill-dagster/locks")
    assert lock_folder({"HOME": "/home/a"}) == Path("/home/a/.local/state/backfill-dagster/locks")
    assert lock_folder({}) == Path.home() / ".local/state/backfill-dagster/locks"


def test_hosts_are_leased_on_the_machine_and_in_the_table(tmp_path: Path, ministack: str, aws_environ: None) -> None:
    shared = in_dynamodb(tmp_path, ministack, table_name())
    here, there = ({"BACKFILL_LOCK_DIR": str(tmp_path / name)} for name in ("here", "there"))
    own, table = host_lease_tables(shared, here)
    record = lease(name="pds.example")
    assert own.compare_and_set(record.name, None, record) is True
    assert table.compare_and_set(record.name, None, record) is True
    assert [one.holders() for one in (own, table)] == [[record], [record]]
    elsewhere, same_table = host_lease_tables(shared, there)
    assert elsewhere.read(record.name) is None
    assert same_table.compare_and_set(record.name, None, record) is False


def test_host_leases_are_one_file_for_all(tmp_path: Path) -> None:
    environ = {"BACKFILL_LOCK_DIR": str(tmp_path / "locks")}
    [table] = host_lease_tables(config(tmp_path), environ)
    assert table.read("pds.example") is None
    assert list(tmp_path.iterdir()) == []
    assert table.compare_and_set(lease().name, None, lease()) is True
    assert machine_lease_table(environ).compare_and_set(lease().name, None, lease()) is False
    assert (tmp_path / "locks" / "hosts.sqlite").exists()
    table.close()
