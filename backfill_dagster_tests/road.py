"""The whole road for tests: a config against a local network, planned and run, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml

from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.effects import Effects
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD
from backfill_dagster.plan.make import PlanResult
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings, total_outcomes, total_rows
from backfill_dagster.state import BackfillState, open_state
from backfill_dagster.worker.backfill import BackfillRun, run_backfill, shards_with_work
from backfill_dagster.worker.planning import plan_backfill


def write_config(folder: Path, plc_url: str, dids: list[str], **changes: Any) -> Path:
    """A YAML file for a network on loopback; `changes` are merged into its blocks."""
    block: dict[str, Any] = {
        "name": "study",
        "source": {"type": "inline", "dids": dids},
        "record_types": ["app.bsky.*"],
        "identity": {"plc_url": plc_url, "requests_per_second": 1000, "handle_resolver": None},
        "processing": {
            "allow_private_hosts": True,
            "requests_per_second": 1000,
            "max_retries": 1,
            "shard_size": 20,
            "batch_size": 7,
        },
    }
    for key, value in changes.items():
        block[key] = block.get(key, {}) | value if isinstance(value, Mapping) and key != "source" else value
    (folder / "workspace.yaml").touch()
    path = folder / f"{block['name']}.yaml"
    path.write_text(yaml.safe_dump({"backfill": block}))
    return path


@dataclass
class Came:
    """What a run came to."""

    planned: PlanResult
    done: BackfillRun
    outcomes: dict[str, str]
    rows: dict[str, int]


@contextmanager
def opened(path: Path, effects: Effects | None = None) -> Iterator[BackfillState]:
    with open_state(load_config(path), effects=effects) as state:
        yield state


async def run_all(state: BackfillState, **plan_options: Any) -> Came:
    """Plan and run everything that has work."""
    run_id = state.effects.new_id()
    planned = await plan_backfill(state, run_id=run_id, **plan_options)
    selection = load_selection(state.config)
    shards = shards_with_work(state, planned.plan, selection.scope)
    done = await run_backfill(state, planned.plan, selection, shards, run_id=run_id)
    return Came(planned, done, outcomes_of(state, planned), dict(rows_of(state, planned)))


def outcomes_of(state: BackfillState, planned: PlanResult) -> dict[str, str]:
    """DID -> outcome, by the ledger, of the plan's current shards."""
    found = {}
    for key in [*planned.plan.shards(), UNROUTABLE_SHARD]:
        for one in planned.plan.dids(key):
            item = state.ledger.item(key, one.did)
            if not one.delisted:
                found[one.did] = item.result.outcome.value if item else "pending"
    return found


def rows_of(state: BackfillState, planned: PlanResult) -> dict[str, int]:
    standings = all_standings(state, planned.plan, load_selection(state.config).scope)
    assert sum(total_outcomes(standings).values()) == planned.plan.count
    return dict(total_rows(standings))


def rows_by_author(config: BackfillConfig) -> dict[str, dict[str, int]]:
    """Author -> record type -> rows, by a plain glob over records/."""
    pattern = str(Path(str(config.state_path)) / "records" / "*" / "*.parquet")
    found: dict[str, dict[str, int]] = {}
    if not list(Path(str(config.state_path)).glob("records/*/*.parquet")):
        return found
    query = (
        "SELECT author, record_type, count(*), count(DISTINCT uri) "
        f"FROM read_parquet('{pattern}', hive_partitioning = true, union_by_name = true) GROUP BY ALL"
    )
    for author, record_type, count, distinct in duckdb.sql(query).fetchall():
        assert count == distinct, f"{author} has URIs twice in {record_type}"
        found.setdefault(author, {})[record_type] = count
    return found


def expected_rows(network: LocalNetwork, *, wanted: tuple[str, ...] = ("app.bsky.",)) -> dict[str, dict[str, int]]:
    """DID -> record type -> rows that a full backfill of the wanted namespaces has."""
    own_names = {"post", "reply", "repost", "like", "follow", "block"}
    return {
        did: rows
        for did, entry in network.expected.items()
        if (rows := {t: n for t, n in entry["records"].items() if t in own_names or t.startswith(wanted)})
    }


def read_json(text: str) -> Any:
    return json.loads(text)
