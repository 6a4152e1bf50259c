"""The SQL that the catalog shows reads what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from backfill_dagster.config import load_config
from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.orchestration import snippets
from backfill_dagster_tests.orchestration.network import threaded_network
from backfill_dagster_tests.orchestration.road import Road, materialized
from backfill_dagster_tests.orchestration.samples import write_yaml

OPTIONS = LocalnetOptions(hosts=2, repos=10, median_records=20, max_records=60, states={"deactivated": 1})
TYPES = ["app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.*", "app.bsky.actor.profile"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Road, dict[str, int]]]:
    """A finished backfill, and asset -> rows by its materializations."""
    rows: dict[str, int] = dict.fromkeys(["app_bsky_feed_post", "app_bsky_feed_like", "app_bsky_graph_all"], 0)
    with threaded_network(OPTIONS) as net, dg.DagsterInstance.ephemeral() as instance:
        # A quote in a path is what SQL is easily wrong about, wildcards are what DuckDB is.
        road = Road(tmp_path_factory.mktemp("it's [mine]*"), net, instance, record_types=TYPES)
        for key in road.plan():
            result = road.run("backfill_study", key=key)
            for asset in rows:
                rows[asset] += materialized(result, asset)["dagster/partition_row_count"]
        road.run("report_study")
        yield road, rows


def shown(road: Road, asset: str) -> str:
    """The snippet as the catalog has it."""
    spec = next(one for one in road.defs.resolve_all_asset_specs() if one.key.path == ["study", asset])
    text: str = spec.metadata["duckdb"].value
    return text.removeprefix("```sql\n").removesuffix("\n```")


def count(sql: str) -> int:
    [(rows,)] = duckdb.sql(f"SELECT count(*) FROM ({sql.rstrip(';')})").fetchall()
    return int(rows)


@pytest.mark.parametrize("asset", ["app_bsky_feed_post", "app_bsky_feed_like", "app_bsky_graph_all"])
def test_records(done: tuple[Road, dict[str, int]], asset: str) -> None:
    road, rows = done
    assert count(shown(road, asset)) == rows[asset] > 0


def test_a_type_of_its_own_folder(done: tuple[Road, dict[str, int]]) -> None:
    assert count(shown(done[0], "app_bsky_actor_profile")) > 0


@pytest.mark.parametrize("asset", ["shard_plan", "repo_outcomes", "did_list"])
def test_one_row_per_did(done: tuple[Road, dict[str, int]], asset: str) -> None:
    road, _ = done
    assert count(shown(road, asset)) == len(road.net.network.dids)


def test_outcomes_have_their_columns(done: tuple[Road, dict[str, int]]) -> None:
    sql = f"SELECT outcome, count(*) FROM ({shown(done[0], 'repo_outcomes')}) GROUP BY ALL ORDER BY ALL"
    assert duckdb.sql(sql).fetchall() == [("complete", 9), ("deactivated", 1)]


def test_coverage(done: tuple[Road, dict[str, int]]) -> None:
    rows = duckdb.sql(
        f"SELECT outcome, sum(dids)::INT FROM ({shown(done[0], 'coverage_report')}) GROUP BY ALL ORDER BY 1"
    )
    assert rows.fetchall() == [("complete", 9), ("deactivated", 1)]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "dids.csv").write_text("did,cohort\na,1\nb,2\n")
    config = load_config(write_yaml(tmp_path, source={"type": "file", "path": str(tmp_path / "dids.csv")}))
    assert count(snippets.did_list_sql(config)) == 2
    duckdb.sql(f"COPY (SELECT 1 AS did) TO '{tmp_path}/dids.parquet'")
    config = load_config(write_yaml(tmp_path, source={"type": "file", "path": str(tmp_path / "dids.parquet")}))
    assert count(snippets.did_list_sql(config)) == 1


def test_files_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "dids.txt").write_text("did:plc:a\ndid:plc:b\n")
    config = load_config(write_yaml(tmp_path, source={"type": "file", "path": str(tmp_path / "dids.txt")}))
    assert duckdb.sql(snippets.did_list_sql(config)).fetchall() == [("did:plc:a",), ("did:plc:b",)]
    (tmp_path / "dids.csv").write_text("1,did:plc:a\n2,did:plc:b\n")
    source = {"type": "file", "path": str(tmp_path / "dids.csv"), "header": False, "column": "column1"}
    config = load_config(write_yaml(tmp_path, source=source))
    assert duckdb.sql(f"SELECT column1 FROM ({snippets.did_list_sql(config)})").fetchall() == [
        ("did:plc:a",),
        ("did:plc:b",),
    ]


def test_sources_of_other_kinds(tmp_path: Path) -> None:
    sqlite = {"type": "sqlite", "path": "/data/dids.sqlite", "query": "SELECT did FROM users"}
    assert snippets.did_list_sql(load_config(write_yaml(tmp_path, source=sqlite))) == (
        "ATTACH '/data/dids.sqlite' AS source (TYPE sqlite, READ_ONLY); USE source;\nSELECT did FROM users"
    )
    s3 = {"type": "s3", "path": "s3://bucket/dids/*.parquet"}
    assert snippets.did_list_sql(load_config(write_yaml(tmp_path, source=s3))) == "FROM 's3://bucket/dids/*.parquet'"
    below = s3 | {"path": "s3://bucket/dids/", "format": "parquet"}
    assert snippets.did_list_sql(load_config(write_yaml(tmp_path, source=below))) == (
        "FROM read_parquet('s3://bucket/dids/**')"
    )
    headless = s3 | {"path": "s3://bucket/dids.csv", "header": False}
    assert snippets.did_list_sql(load_config(write_yaml(tmp_path, source=headless))) == (
        "FROM read_csv('s3://bucket/dids.csv', header = false, all_varchar = true)"
    )
    query = s3 | {"query": "SELECT did FROM source WHERE cohort = 'a'"}
    assert snippets.did_list_sql(load_config(write_yaml(tmp_path, source=query))) == (
        "WITH source AS (FROM 's3://bucket/dids/*.parquet')\nSELECT did FROM source WHERE cohort = 'a'"
    )


def test_what_a_host_says_of_its_repos(tmp_path: Path) -> None:
    """DuckDB reads the answer's shape; over the network it needs an extension, here it reads a file."""
    answer = {"cursor": "x", "repos": [{"did": "did:plc:a", "head": "b", "rev": "c", "active": True}]}
    (tmp_path / "listRepos.json").write_text(json.dumps(answer))
    sql = snippets.network_sql(load_config(write_yaml(tmp_path)))
    url = "https://<host>/xrpc/com.atproto.sync.listRepos?limit=1000"
    assert url in sql
    sql = sql.split("  -- ")[0].replace(url, str(tmp_path / "listRepos.json"))
    assert duckdb.sql(f"SELECT did, rev FROM ({sql})").fetchall() == [("did:plc:a", "c")]
