"""The example config of the proposal, key by key; AWS is where the environment says."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from backfill_dagster_tests.aws.conftest import rows_of
from backfill_dagster_tests.aws.place import Place
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.orchestration.network import ThreadedNetwork

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")

EXAMPLE = """\
backfill:
  name: "example_backfill"
  version: "1.0"
  source:                       # where the DIDs come from
    type: "sqlite"              # or "s3"
    path: "path/to/sqlite.db"   # or "s3://bucket/path"
    query: "SELECT did FROM dids"   # optional, SQLite
  record_types:
    - "app.bsky.feed.post"
    - "app.bsky.feed.like"
    - "app.bsky.feed.repost"
  time_range:
    start_date: "2025-01-02"
    end_date: "2025-02-02"      # optional
  processing:
    batch_size: 100
    max_concurrent_pds: 32
    requests_per_second: 10
    max_retries: 3
  storage:                      # per-DID results
    type: "dynamodb"
    table_name: "backfill_results"
    region: "us-west-2"
  monitoring:
    prometheus_port: 8000
    log_level: "INFO"
    alert_on_failure: true
"""


@pytest.fixture
def config(folder: Path, network: ThreadedNetwork) -> Path:
    """The example, with the directory's address and leave to go to loopback added; the list where its path points."""
    content = yaml.safe_load(EXAMPLE)
    content["backfill"]["identity"] = {"plc_url": network.network.plc_url}
    content["backfill"]["processing"]["allow_private_hosts"] = True
    path = folder / "example_backfill.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "path" / "to").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "path" / "to" / "sqlite.db")) as database, database:
        database.execute("CREATE TABLE dids (did TEXT)")
        database.executemany("INSERT INTO dids VALUES (?)", [(did,) for did in network.network.dids])
    return path


def test_it_runs(
    config: Path, network: ThreadedNetwork, place: Place, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", place.dynamodb)
    assert backfill("validate", "--source", config).code == 0
    assert backfill("ledger", "create", config).out.startswith(
        f"DynamoDB table backfill_results at {place.dynamodb} (us-west-2): "
    )
    for command in ("plan", "run", "status", "verify"):
        ran = backfill(command, config)
        assert (ran.code, ran.err) == (0, ""), command
    outcomes = backfill("status", config, "--json").json["outcomes"]
    assert sum(outcomes.values()) == len(network.network.dids)
    assert outcomes["complete"] == len(network.network.active)
    types = '(FROM post UNION ALL BY NAME FROM reply UNION ALL BY NAME FROM "like" UNION ALL BY NAME FROM repost)'
    moments = f"(SELECT coalesce(created_at_ts, rkey_ts) AS moment FROM {types})"
    sql = f"SELECT count(*), min(moment), max(moment) FROM {moments}"
    [[count, first, last]] = backfill("query", config, sql, "--json").json["rows"]
    assert 0 < count < sum(rows_of(network.network).values())
    assert "2025-01-02" <= first <= last < "2025-02-03", "the last day is whole"
    seen = backfill("ledger", "counts", config, "--json").json["outcomes"]
    assert seen == outcomes
