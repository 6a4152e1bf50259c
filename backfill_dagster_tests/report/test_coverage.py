"""The coverage report's numbers, against a network that knows them."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import build_coverage, write_report
from backfill_dagster.report import coverage as coverage_module
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.road import expected_rows, run_all
from backfill_dagster_tests.worker.tiny import state_of, tiny

STATES = {"deactivated": 2, "deleted": 1, "unknown": 1, "not_a_did": 1}


def totals(network: LocalNetwork) -> Counter[str]:
    total: Counter[str] = Counter()
    for rows in expected_rows(network).values():
        total.update(rows)
    return total


async def test_before_and_after(folder: Path) -> None:
    async with tiny(repos=9, hosts=2, states=STATES) as network:
        with state_of(folder, network) as state:
            with pytest.raises(UsageError, match="nothing is planned yet"):
                build_coverage(state)
            await plan_backfill(state, run_id="plan")
            planned = build_coverage(state)
            assert planned.outcomes == {Outcome.PENDING: 8, Outcome.UNRESOLVABLE: 1, Outcome.INVALID_DID: 1}
            assert planned.left == 8
            assert planned.missing[Outcome.PENDING].errors == {"-": 8}
            assert planned.rows.total() == 0

            await run_all(state)
            coverage = build_coverage(state)
            outcomes = Counter(entry["outcome"] for entry in network.expected.values())
            assert coverage.outcomes == {Outcome(name): count for name, count in outcomes.items()}
            assert (coverage.dids, coverage.left, coverage.delisted) == (10, 0, 0)
            assert coverage.rows == totals(network)
            by_host = {host: counts.total() for host, counts in coverage.hosts.items()}
            ports = {f"localhost_{host.url.rpartition(':')[2]}": len(host.dids) for host in network.hosts}
            assert by_host == ports | {UNROUTABLE_SHARD: 2}
            assert coverage.estimate == PlanStore(state.store).read().metadata["estimate"]
            gone = coverage.missing[Outcome.DEACTIVATED]
            assert (gone.dids, gone.errors) == (2, {"RepoDeactivated": 2})
            deactivated = [did for did, entry in network.expected.items() if entry["outcome"] == "deactivated"]
            assert {did for did, _, _ in gone.examples} == set(deactivated)
            assert all("RepoDeactivated" in detail for _, _, detail in gone.examples)
            assert coverage.repo_bytes == sum(len(network.world.shelf.get(did).car()) for did in network.active)
            assert Outcome.COMPLETE not in coverage.missing


async def test_the_json_form(folder: Path) -> None:
    async with tiny(repos=6, states=STATES) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            coverage = build_coverage(state)
            said = coverage.to_json()
            assert said == json.loads(json.dumps(said))
            assert said["outcomes"] == {
                "complete": 2,
                "deactivated": 2,
                "not_found": 1,
                "unresolvable": 1,
                "invalid_did": 1,
            }
            assert next(iter(said["missing"])) == "deactivated"
            assert said["missing"]["not_found"]["why"].startswith("the host has no such repo")
            assert said["missing"]["not_found"]["remedy"] == "a refresh asks again"
            assert said["records"] == dict(sorted(totals(network).items()))
            assert said["records_path"] == str(Path(str(state.config.state_path)) / "records")


async def test_it_is_written_beside_the_records(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            coverage = build_coverage(state)
            keys = write_report(state, coverage)
            assert keys[:2] == ["reports/coverage.html", "reports/coverage.json"]
            assert json.loads(state.store.get(keys[1])) == json.loads(state.store.get(keys[2])) == coverage.to_json()
            assert state.store.get(keys[0]).startswith(b"<!doctype html>")
            assert coverage.generated_at.startswith("2027-01-15T08:00:00.")
            assert keys[2] == f"reports/history/2027-01-15T080000-{coverage.generated_at[-4:]}.json"
            coverage.name = "broken \udcff name"
            write_report(state, coverage)
            assert b"broken ? name" in state.store.get(keys[0])


async def test_rows_that_a_shard_without_dids_still_has(folder: Path) -> None:
    """Its only account has moved; until the new host serves it, the rows stay and count."""
    async with tiny(repos=1, hosts=2) as network:
        did = network.dids[0]
        with state_of(folder, network) as state:
            await run_all(state)
            rows = build_coverage(state).rows
            assert rows.total() > 0
            await network.control.move({"did": did, "to": 1})
            await run_all(state, refresh=True)
            await plan_backfill(state, run_id="plan")
            assert sorted(PlanStore(state.store).read().shards().values()) == [0, 1]
            coverage = build_coverage(state)
            assert coverage.outcomes == {Outcome.PENDING: 1}
            assert coverage.rows == rows
            await run_all(state)
            assert build_coverage(state).rows == rows


async def test_another_scope_is_pending_with_the_old_rows(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await run_all(state)
        with state_of(folder, network, record_types=["app.bsky.feed.like"]) as state:
            coverage = build_coverage(state)
            assert coverage.outcomes == {Outcome.PENDING: 2}
            assert coverage.rows == totals(network)
            assert coverage.repo_bytes == 0


async def test_quarantined_and_undated_records(folder: Path) -> None:
    async with tiny(repos=2) as network:
        did = network.dids[0]
        undated: dict[str, Any] = {"collection": "app.bsky.feed.like", "rkey": "self", "record": {"createdAt": None}}
        broken = {"collection": "app.bsky.feed.post", "record": {"text": 7}}
        await network.control.add({"did": did, "records": [undated, broken]})
        with state_of(folder, network, time_range={"start_date": "2023-01-01"}) as state:
            await run_all(state)
            coverage = build_coverage(state)
            assert (coverage.quarantined, coverage.undated) == (1, 1)


async def test_many_examples_and_many_values_are_bounded(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(coverage_module, "EXAMPLES_MAX", 2)
    monkeypatch.setattr(coverage_module, "COLUMN_VALUES_MAX", 3)
    path = folder / "users.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE users (did TEXT, age TEXT)")
        database.executemany("INSERT INTO users VALUES (?, ?)", [(f"nobody {n}", str(n % 6)) for n in range(12)])
    database.close()
    source = {"type": "sqlite", "path": str(path), "query": "SELECT * FROM users", "keep_columns": ["age"]}
    async with tiny(repos=1) as network:
        with state_of(folder, network, source=source) as state:
            await plan_backfill(state, run_id="plan")
            coverage = build_coverage(state)
            missing = coverage.missing[Outcome.INVALID_DID]
            assert (missing.dids, len(missing.examples)) == (12, 2)
            assert len(coverage.columns["age"]) == 4
            assert coverage.columns["age"]["(other)"].total() == 6
            assert sum(counts.total() for counts in coverage.columns["age"].values()) == 12
