"""`backfill ledger`: the table made, and what a ledger answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.cli.opening import opened
from backfill_dagster.ledger import Lease
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import Network
from backfill_dagster_tests.ledger.dynamodb_tables import REGION, client_of, table_name

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")


def in_dynamodb(url: str, **changes: Any) -> dict[str, Any]:
    return {
        "storage": {"type": "dynamodb", "table_name": table_name(), "region": REGION, "endpoint_url": url} | changes
    }


def dids_of(network: Network) -> list[str]:
    return [did for host in network.said["hosts"] for did in host["dids"]]


def test_created_once_then_it_fits(folder: Path, network: Network, backfill: Command, ministack: str) -> None:
    changes = in_dynamodb(ministack)
    config, name = network.write_config(folder, **changes), changes["storage"]["table_name"]
    place = f"DynamoDB table {name} at {ministack} (us-east-1)"
    early = backfill("plan", config)
    assert (early.code, early.out) == (1, "")
    assert early.err == (
        f"backfill: {place}: no such table; `backfill ledger create CONFIG` creates it, or storage.create_table: true, "
        "or correct table_name, region and endpoint_url\n"
    )
    first, second = backfill("ledger", "create", config), backfill("ledger", "create", config)
    assert (first.code, first.out) == (0, f"{place}: created\n")
    assert (second.code, second.out) == (0, f"{place}: is there already and fits\n")
    assert backfill("run", config).code == 0
    assert backfill("verify", config).out == "clean\n"


def test_another_programs_table_is_refused(folder: Path, network: Network, backfill: Command, ministack: str) -> None:
    changes = in_dynamodb(ministack, create_table=True)
    client_of(ministack).create_table(
        TableName=changes["storage"]["table_name"],
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "did", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "did", "AttributeType": "S"}],
    )
    config = network.write_config(folder, **changes)
    for command in (("plan", config), ("ledger", "create", config)):
        ran = backfill(*command)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert "is not one of ours: its key is (did), wanted (pk, did);" in ran.err
    assert not (folder / "data" / "study" / "plan").exists()


def test_a_sqlite_ledger_has_no_table(config: Path, backfill: Command) -> None:
    ran = backfill("ledger", "create", config)
    assert (ran.code, ran.out) == (2, "")
    assert "storage.type is sqlite, whose ledger the first plan makes; only one of type dynamodb" in ran.err


@pytest.mark.parametrize("kind", ["sqlite", "dynamodb"])
def test_what_a_ledger_answers(
    request: pytest.FixtureRequest, folder: Path, network: Network, backfill: Command, kind: str
) -> None:
    changes: dict[str, Any] = {}
    if kind == "dynamodb":
        changes = in_dynamodb(request.getfixturevalue("ministack"), create_table=True)
    config, did = network.write_config(folder, **changes), dids_of(network)[0]
    assert backfill("plan", config).code == 0
    early = [backfill("ledger", *words) for words in (("counts", config), ("find", config, did), ("leases", config))]
    assert [ran.out for ran in early] == [
        "no shard has summed up yet\n",
        f"no backfill of this ledger has an item of {did}\n",
        "nobody holds a lease\n",
    ]
    assert backfill("run", config).code == 0

    outcomes = network.outcomes()
    assert backfill("ledger", "counts", config, "--json").json == {"outcomes": dict(sorted(outcomes.items()))}
    said = backfill("ledger", "counts", config).out.split()
    assert dict(zip(said[1::2], map(int, said[::2]), strict=True)) == outcomes

    [found] = backfill("ledger", "find", config, did, "--json").json["items"]
    assert (found["did"], found["backfill"]) == (did, "study")
    assert backfill("ledger", "find", config, did).out.startswith(f"study  {found['shard']}: {found['outcome']}")

    with opened(config) as state:
        name, shard = state.lease_name(found["shard"]), found["shard"]
        by = {"owner": "run 1 of study", "run_id": "1", "lease_seconds": 600}
        host = shard.split("~")[0]
        tables = [(state.ledger.leases, name), *((table, host) for table in state.host_leases)]
        held = [Lease.acquire(table, leased, **by) for table, leased in tables]  # type: ignore[arg-type]
        try:
            ran, as_json = backfill("ledger", "leases", config), backfill("ledger", "leases", config, "--json")
        finally:
            for lease in held:
                lease.release()
    assert [line.partition(" (epoch")[0] for line in ran.out.splitlines()] == [
        f"shard  {name}: run 1 of study",
        f"host  {host}: run 1 of study",
    ]
    assert [(one["of"], one["name"], one["run_id"]) for one in as_json.json["leases"]] == [
        ("shard", name, "1"),
        ("host", host, "1"),
    ]
