"""What the worker's tests share: tiny networks, states on them, rows as sets, what every state has to be in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster.model import LedgerItem
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.fold import Fold
from backfill_dagster.report import verify_backfill
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker import ShardResult, run_shard
from backfill_dagster.worker.backfill import find_shard
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, write_config

Rows = set[tuple[str, str, str]]

POSTS_AND_LIKES = ["app.bsky.feed.post", "app.bsky.feed.like"]
"""Few types, so few parts: for tests that count steps."""


def tiny(repos: int = 4, hosts: int = 1, *, seed: int = 5, median: int = 15, **more: Any) -> LocalNetwork:
    """A network of active accounts with a handful of records each."""
    more.setdefault("states", {})
    return LocalNetwork(
        LocalnetOptions(hosts=hosts, repos=repos, seed=seed, median_records=median, max_records=60, **more)
    )


@contextmanager
def state_of(
    folder: Path, network: LocalNetwork, dids: list[str] | None = None, **changes: Any
) -> Iterator[BackfillState]:
    """An opened state whose waits take no time."""
    path = write_config(folder, network.plc_url, network.dids if dids is None else dids, **changes)
    with opened(path, InstantTime().effects()) as state:
        yield state


def rows_in(state: BackfillState) -> Rows:
    """(URI, CID, record type) of every row that a plain glob over records/ sees; no URI twice."""
    found = rows_below(state, "records", "uri, cid, record_type")
    assert len({uri for uri, _, _ in found}) == len(found), "a URI is there twice"
    return set(found)


def rows_below(state: BackfillState, folder: str, columns: str) -> list[tuple[Any, ...]]:
    """Columns of all Parquet files in a folder of the state, live or not, wherever the state is."""
    paths = [state.store.path(info.key) for info in state.store.list(f"{folder}/") if info.key.endswith(".parquet")]
    if not paths:
        return []
    with duckdb.connect() as database:
        if (filesystem := state.store.duckdb_filesystem()) is not None:
            database.register_filesystem(filesystem)
        query = f"SELECT {columns} FROM read_parquet(?, hive_partitioning = ?, union_by_name = true)"
        return database.execute(query, [paths, folder == "records"]).fetchall()


def shard_keys(state: BackfillState) -> list[str]:
    return list(PlanStore(state.store).read().shards())


def only_shard(state: BackfillState) -> str:
    (key,) = shard_keys(state)
    return key


def fold_of(state: BackfillState, key: str | None = None) -> Fold:
    return state.log(key or only_shard(state)).read()


def item_of(state: BackfillState, did: str, key: str | None = None) -> LedgerItem:
    item = state.ledger.item(key or only_shard(state), did)
    assert item is not None
    return item


async def run_one(state: BackfillState, key: str | None = None, **options: Any) -> ShardResult:
    """Run one shard by the plan as it is, without planning first."""
    plan = PlanStore(state.store).read()
    shard = find_shard(plan, key or only_shard(state))
    options.setdefault("run_id", state.effects.new_id())
    return await run_shard(state, plan, load_selection(state.config), shard, **options)


def assert_sound(state: BackfillState) -> None:
    """All pieces agree, nothing lies about, nobody holds a lease."""
    assert verify_backfill(state) == []
    assert state.store.staged() == []
    assert_released(state)


def assert_released(state: BackfillState) -> None:
    for key in shard_keys(state):
        lease = state.ledger.leases.read(f"{state.config.name}/{key}")
        host = state.host_leases[0].read(key.split("~")[0])
        assert lease is None or lease.released
        assert host is None or host.released
