"""`backfill ledger`: the table made, and what a ledger answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.cli.opening import opened
from backfill_dagster.ledger import Lease, ShardSummary
from backfill_dagster.ledger.dynamodb_table import _schema
from backfill_dagster_tests.aws.proxy import proxied
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import Network
from backfill_dagster_tests.ledger.contract import item, lease
from backfill_dagster_tests.ledger.dynamodb_tables import REGION, client_of, table_name

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")


LARGE = {f"org.example.{'x' * 80}{number}": number for number in range(600)}
"""A map of some 60 KiB: twenty items of it are more than a page of DynamoDB's."""


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


class TestManyPages:
    """DynamoDB gives a MiB at a time, and of a batch of reads 16."""

    @pytest.fixture
    def config(self, folder: Path, network: Network, backfill: Command, ministack: str) -> Iterator[Path]:
        with proxied(ministack) as self.proxy:
            config = network.write_config(folder, **in_dynamodb(self.proxy.url, create_table=True))
            assert backfill("plan", config).code == 0
            yield config

    def asked(self, target: str) -> int:
        return len([seen for seen in self.proxy.seen if seen.target == target])

    def test_of_summaries(self, config: Path, backfill: Command) -> None:
        with opened(config) as state:
            for number in range(40):
                summary = ShardSummary(outcomes={"complete": number}, rows=LARGE, seq=1)
                state.ledger.put_summary(f"pds.example~{number:04d}", summary)
        self.proxy.seen.clear()
        assert backfill("ledger", "counts", config, "--json").json == {"outcomes": {"complete": sum(range(40))}}
        assert self.asked("Query") >= 3

    def test_of_items(self, config: Path, backfill: Command) -> None:
        shards = [f"pds.example~{number:04d}" for number in range(130)]
        with opened(config) as state:
            state.ledger.put([item("did:plc:a", 1, shard=shard, records_seen_by_collection=LARGE) for shard in shards])
        self.proxy.seen.clear()
        found = backfill("ledger", "find", config, "did:plc:a", "--json").json["items"]
        assert [one["shard"] for one in found] == shards
        assert found[0]["records_seen_by_collection"] == LARGE
        assert self.asked("BatchGetItem") >= 2

    def test_of_leases(self, config: Path, backfill: Command) -> None:
        owner = "a run of " + "x" * 4000
        names = [f"study/pds.example~{number:04d}" for number in range(500)]
        with opened(config) as state:
            for number, name in enumerate(names):
                record = lease(name=name, owner_text=owner, released=number % 2 == 0)
                assert state.ledger.leases.compare_and_set(name, None, record)
        self.proxy.seen.clear()
        found = backfill("ledger", "leases", config, "--json").json["leases"]
        assert [one["name"] for one in found] == names[1::2]
        assert self.asked("Query") >= 3


class TestAnotherTable:
    """What the looking commands say about a table that has become another one, or is gone."""

    COMMANDS = (("counts",), ("find", "did:plc:a"), ("leases",), ("create",))

    @pytest.fixture
    def config(self, folder: Path, network: Network, backfill: Command, ministack: str) -> Path:
        changes = in_dynamodb(ministack)
        self.table, self.client = changes["storage"]["table_name"], client_of(ministack)
        config = network.write_config(folder, **changes)
        assert backfill("ledger", "create", config).code == 0
        assert backfill("plan", config).code == 0
        self.client.delete_table(TableName=self.table)
        return config

    def refused(self, config: Path, backfill: Command, command: tuple[str, ...], said: str) -> None:
        """Exit 1 with one line that says this."""
        ran = backfill("ledger", command[0], config, *command[1:])
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1), ran
        assert f"DynamoDB table {self.table} at " in ran.err
        assert said in ran.err

    def made(self, **changes: Any) -> None:
        wanted = {name: value for name, value in (_schema() | changes).items() if value is not None}
        self.client.create_table(TableName=self.table, BillingMode="PAY_PER_REQUEST", **wanted)

    def test_it_is_gone(self, config: Path, backfill: Command) -> None:
        for command in self.COMMANDS[:-1]:
            self.refused(config, backfill, command, "no such table; `backfill ledger create CONFIG` creates it, or")
        assert self.table not in self.client.list_tables()["TableNames"]

    def test_it_has_another_key(self, config: Path, backfill: Command) -> None:
        one = [{"AttributeName": "id", "AttributeType": "S"}]
        key = [{"AttributeName": "id", "KeyType": "HASH"}]
        self.made(KeySchema=key, AttributeDefinitions=one, GlobalSecondaryIndexes=None)
        for command in self.COMMANDS:
            said = (
                "is not one of ours: its key is (id), wanted (pk, did); it has no index did-index on (did, finished_at)"
            )
            self.refused(config, backfill, command, said)
            self.refused(config, backfill, command, "take another storage.table_name and create it with `backfill")

    def test_it_lacks_an_index(self, config: Path, backfill: Command) -> None:
        wanted = _schema()
        used = [one for one in wanted["AttributeDefinitions"] if one["AttributeName"] in ("pk", "did", "finished_at")]
        self.made(GlobalSecondaryIndexes=wanted["GlobalSecondaryIndexes"][:1], AttributeDefinitions=used)
        for command in self.COMMANDS:
            self.refused(config, backfill, command, "it has no index attention-index on (attention, shard_did); take")
