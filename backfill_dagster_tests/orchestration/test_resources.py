"""Sources and state as resources, failures, progress."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import ConfigError, InterruptedRunError, LeaseHeldError, UsageError
from backfill_dagster.orchestration.failures import clear_failures
from backfill_dagster.orchestration.progress_log import ProgressLog
from backfill_dagster.orchestration.resources import BackfillResource, InlineSource, source_of
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster_tests.orchestration.samples import DID, write_yaml


@pytest.mark.parametrize(
    "source",
    [
        {"type": "sqlite", "path": "a.db", "query": "SELECT did, cohort FROM users", "keep_columns": ["cohort"]},
        {"type": "file", "path": "a.csv", "column": "user", "header": False, "keep_columns": ["x", "y"]},
        {"type": "file", "path": "a.txt"},
        {"type": "inline", "dids": [DID, "alice.example"]},
        {"type": "s3", "path": "s3://bucket/a/", "format": "csv", "region": "us-west-2", "query": "SELECT 1"},
    ],
)
def test_a_resource_stands_for_the_whole_source_block(source: dict[str, object]) -> None:
    block = {"name": "x", "source": source, "record_types": ["app.bsky.feed.post"]}
    config = BackfillConfig.from_mapping(block, path=Path("x.yaml"), environ={})
    assert source_of(config).block() == config.source


def test_the_state_opens_with_another_source(tmp_path: Path) -> None:
    resource = BackfillResource(config_path=str(write_yaml(tmp_path)))
    with resource.open_state(create=True, source=InlineSource(dids=["did:plc:" + "a" * 24])) as state:
        assert state.config.name == "study"
        assert state.config.source == InlineSource(dids=["did:plc:" + "a" * 24]).block()
        assert state.config.path == tmp_path / "study.yaml"


def test_the_plan_is_read_once_in_a_run(tmp_path: Path) -> None:
    resource = BackfillResource(config_path=str(write_yaml(tmp_path)))
    with resource.open_state(create=True) as state:
        plan = resource.plan(state)
        assert plan.count == 0
        assert resource.plan(state) is plan


def test_only_a_plan_begins_a_state(tmp_path: Path) -> None:
    resource = BackfillResource(config_path=str(write_yaml(tmp_path)))
    with pytest.raises(UsageError, match="nothing is planned yet"), resource.open_state():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_a_config_that_has_become_invalid_is_an_error(tmp_path: Path) -> None:
    resource = BackfillResource(config_path=str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError), resource.open_state():
        pass


@pytest.mark.parametrize("error", [LeaseHeldError("held by run 7"), InterruptedRunError("held by run 7")])
def test_our_errors_become_clear_failures(error: Exception) -> None:
    with pytest.raises(dg.Failure) as caught, clear_failures():
        raise error
    assert caught.value.description == "held by run 7"
    assert caught.value.allow_retries is False
    assert caught.value.metadata["error"].value == type(error).__name__
    assert caught.value.__suppress_context__


def test_everything_else_passes() -> None:
    with pytest.raises(ZeroDivisionError), clear_failures():
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), clear_failures():
        raise KeyboardInterrupt


def test_progress_is_said_every_ten_seconds() -> None:
    now = [100.0]
    said: list[str] = []
    progress = ProgressLog(said.append, monotonic=lambda: now[0])
    run = RunNumbers(
        dids_done=3, dids_total=12_000, records_total=45, bytes_fetched=6_700_000, requests=4, rate_limited=1
    )
    for at in (100.0, 109.9, 110.0, 111.0, 119.9, 120.5):
        now[0] = at
        progress.shard(run)
    assert said == ["3 of 12,000 DIDs, 45 records, 6.7 MB in 4 requests (1 of them 429)"] * 2
    now[0] = 131.0
    progress.plan(7, 9)
    progress.plan(8, 9)
    assert said[2:] == ["7 of 9 DIDs resolved"]
