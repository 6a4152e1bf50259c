"""The YAML files that are shown to people load as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from backfill_dagster.config import (
    BackfillConfig,
    DynamodbStorage,
    SqliteSource,
    load_config,
    starter_yaml,
    unavailable,
)
from backfill_dagster.errors import UsageError
from backfill_dagster_tests.config.samples import write

REPO = Path(__file__).parents[2]

PROPOSAL = """
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


def test_the_proposals_example_loads_unchanged(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, PROPOSAL), {})
    assert config.name == "example_backfill"
    assert config.source == SqliteSource(type="sqlite", path="path/to/sqlite.db", query="SELECT did FROM dids")
    assert config.record_types == ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost")
    assert config.time_range is not None
    assert config.time_range.start_us == 1_735_776_000_000_000  # 2025-01-02T00:00:00Z
    assert config.time_range.end_us == 1_738_540_799_999_999  # 2025-02-02T23:59:59.999999Z
    assert (config.processing.batch_size, config.processing.max_concurrent_pds) == (100, 32)
    assert (config.processing.requests_per_second, config.processing.max_retries) == (10.0, 3)
    assert config.storage == DynamodbStorage(type="dynamodb", table_name="backfill_results", region="us-west-2")
    assert (config.monitoring.prometheus_port, config.monitoring.log_level) == (8000, "INFO")
    assert config.state_path == tmp_path / "data/example_backfill"
    assert unavailable(config) == []


def test_starter_loads_as_it_is(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, starter_yaml("cohort_7")), {})
    assert config.name == "cohort_7"
    assert config.source == SqliteSource(type="sqlite", path="data/dids.sqlite")
    assert unavailable(config) == []


def test_starters_commented_blocks_are_valid_and_spell_out_the_defaults(tmp_path: Path) -> None:
    starter = starter_yaml("cohort_7")
    plain = load_config(write(tmp_path, starter), {})
    for block in ("time_range", "filters", "identity", "storage", "records", "state", "monitoring", "schedule"):
        lines = starter.splitlines()
        start = lines.index(next(line for line in lines if line.startswith(f"  # {block}:")))
        end = next(n for n, line in enumerate(lines[start:], start) if n == len(lines) - 1 or not line.strip())
        shown = [line.replace("  # ", "  ", 1) for line in lines[start : end + 1]]
        config = load_config(write(tmp_path, "\n".join([*lines[:start], *shown, *lines[end + 1 :]])), {})
        if block not in ("time_range", "filters"):
            assert config.config_hash == plain.config_hash, block
        else:
            assert config.config_hash != plain.config_hash, block


def test_starter_shows_every_key() -> None:
    text = starter_yaml()
    top = set(BackfillConfig.model_fields)
    processing = set(type(load_processing()).model_fields)
    assert [key for key in sorted(top | processing) if f"{key}:" not in text] == []


def load_processing() -> object:
    document = {"name": "a", "source": {"type": "inline", "dids": ["x"]}, "record_types": ["app.bsky.feed.post"]}
    return BackfillConfig.from_mapping(document, path=Path("a.yaml"), environ={}).processing


@pytest.mark.parametrize("name", ["", "Study", "7days", "a-b", "a" * 64, "a\nb: c"])
def test_starter_refuses_a_bad_name(name: str) -> None:
    with pytest.raises(UsageError, match="can't name a backfill"):
        starter_yaml(name)


def test_bluesky_example_loads() -> None:
    config = load_config(REPO / "configs/bluesky.yaml", {})
    assert config.name == "bluesky"
    assert config.state_path == REPO / "data/bluesky"
    assert unavailable(config) == []


def test_aws_example_loads() -> None:
    config = load_config(REPO / "configs/example_aws.yaml", {"BACKFILL_BUCKET": "ours"})
    assert config.name == "example_aws"
    assert (config.source.path, config.state_path) == ("s3://ours/lists/*.parquet", "s3://ours/backfills/example_aws")  # type: ignore[union-attr]
    assert config.storage == DynamodbStorage(type="dynamodb", table_name="backfill_results")
    assert unavailable(config) == []
    assert load_config(REPO / "configs/example_aws.yaml", {}).state_path == "s3://my-bucket/backfills/example_aws"


def test_yaml_blocks_of_the_documentation_load(tmp_path: Path) -> None:
    text = (REPO / "docs/configuration.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    assert [load_config(write(tmp_path, block), {}).name for block in blocks] == ["study_users"]


def test_the_whole_schema_with_its_defaults_spelt_out_is_the_smallest_config(tmp_path: Path) -> None:
    smallest = yaml.safe_load(
        "{name: study_users, source: {type: sqlite, path: data/dids.sqlite}, record_types: [app.bsky.feed.post]}"
    )
    defaults = """
      version: "1.0"
      source: {type: sqlite, path: data/dids.sqlite, query: SELECT did FROM dids, keep_columns: []}
      time_range:
      filters:
      identity:
        {plc_url: https://plc.directory, requests_per_second: 50, cache_days: 7,
         handle_resolver: https://public.api.bsky.app}
      processing:
        batch_size: 100
        max_concurrent_pds: 32
        requests_per_second: 10
        total_requests_per_second: null
        max_retries: 3
        shard_size: 4000
        concurrent_requests: 8
        max_repo_mib: 1024
        memory_mib: 512
        decode_processes: 0
        verify: full
        fetch: auto
        since_slack_days: 7
        allow_private_hosts: false
        timeouts: {connect_seconds: 10, first_byte_seconds: 60, idle_seconds: 30, total_seconds: 900}
        quota: {requests: null, hours: null}
        lease_seconds: 60
        user_agent_contact: null
      storage: {type: sqlite, path: null}
      records: {raw: json, compression: zstd}
      state: {path: data/study_users, region: null, endpoint_url: null}
      monitoring:
        prometheus_port: 8000
        log_level: info
        alert_on_failure: true
        alert_webhook_env: BACKFILL_ALERT_WEBHOOK
        max_error_rate: 0.05
      auto_launch: false
      schedule: {resume_cron: "0 * * * *", refresh_cron: "0 3 * * *"}
    """
    full = smallest | yaml.safe_load(defaults)
    at = tmp_path / "a.yaml"
    one = BackfillConfig.from_mapping(smallest, path=at, environ={})
    other = BackfillConfig.from_mapping({"backfill": full}, path=at, environ={})
    assert one.config_hash == other.config_hash
    assert set(full) == set(BackfillConfig.model_fields)
