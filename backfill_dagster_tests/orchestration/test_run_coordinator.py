"""Tags of shard runs, and the limits of the run queue."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.run_coordinator import SubmitRunContext

from backfill_dagster.orchestration.run_coordinator import HOST_LIMIT, PdsHostRunCoordinator
from backfill_dagster.orchestration.run_tags import missing_tags, shard_tags
from backfill_dagster_tests.orchestration.runs import a_run as make_run
from backfill_dagster_tests.orchestration.samples import write_yaml

ROOT = Path(__file__).parents[2]
LOCAL_YAML = ROOT / "deploy" / "local" / "dagster.yaml"
KEY = "localhost_2583~0007"
ALL_SHARDS = {"key": "backfill/name", "limit": 4}
PAGE = {"dagster/partition_set": "backfill_study_partition_set"}
TAGS = {"backfill/pds_host": "localhost_2583", "backfill/name": "study"}


def a_run(job: str, tags: dict[str, str], assets: list[list[str]] | None = None) -> dg.DagsterRun:
    selection = frozenset(dg.AssetKey(path) for path in assets) if assets else None
    return dg.DagsterRun(job_name=job, run_id="1", tags=tags, asset_selection=selection)


def test_tags_of_a_partition_key() -> None:
    assert shard_tags("study", KEY) == TAGS
    assert shard_tags(None, KEY) == {"backfill/pds_host": "localhost_2583"}


def test_a_key_that_somebody_made_up_gets_no_tags() -> None:
    assert shard_tags("study", "made up") == {}


def test_a_run_of_the_job_and_one_from_the_catalog_get_the_same_tags() -> None:
    partition = {"dagster/partition": KEY}
    assert missing_tags(a_run("backfill_study", partition)) == TAGS | PAGE
    assert missing_tags(a_run("__ASSET_JOB", partition, [["study", "repo_outcomes"]])) == TAGS | PAGE


def test_checks_alone_are_kept_from_the_host_and_from_the_partitions_page() -> None:
    """They have their partition's host tag all the same: nobody may be at work on the shard meanwhile."""
    key = dg.AssetCheckKey(dg.AssetKey(["study", "repo_outcomes"]), "drift")
    run = dg.DagsterRun(
        job_name="__ASSET_JOB", run_id="1", tags={"dagster/partition": KEY}, asset_check_selection=frozenset({key})
    )
    assert missing_tags(run) == TAGS


def test_what_is_there_is_not_missing_and_what_is_wrong_is() -> None:
    assert missing_tags(a_run("backfill_study", {"dagster/partition": KEY, **TAGS, **PAGE})) == {}
    wrong = {"dagster/partition": KEY, **TAGS, **PAGE, "backfill/pds_host": "elsewhere.example"}
    assert missing_tags(a_run("backfill_study", wrong)) == {"backfill/pds_host": "localhost_2583"}


def test_other_runs_are_left_alone() -> None:
    assert missing_tags(a_run("plan_study", {})) == {}
    assert missing_tags(a_run("backfill_study", {"dagster/partition": "2026-01-01"})) == {}


@pytest.fixture
def instance(tmp_path: Path) -> Any:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(LOCAL_YAML.read_text())
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as made:
        yield made


def limits(instance: dg.DagsterInstance) -> list[Any]:
    config = instance.get_concurrency_config().run_queue_config
    assert config is not None
    return list(config.tag_concurrency_limits)


def test_the_local_instance_uses_it_and_leaves_room_beside_four_shards(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_coordinator, PdsHostRunCoordinator)
    config = instance.get_concurrency_config().run_queue_config
    assert config is not None
    assert config.max_concurrent_runs == 6
    assert limits(instance)[0] == ALL_SHARDS


def submit(instance: dg.DagsterInstance, job: str, tags: dict[str, str]) -> dg.DagsterRun:
    run = make_run(instance, job, tags=tags)
    return instance.run_coordinator.submit_run(SubmitRunContext(run, Mock()))


def test_submitted_runs_are_tagged_and_queued(instance: dg.DagsterInstance) -> None:
    shard_run = submit(instance, "backfill_study", {"dagster/partition": KEY})
    plan_run = submit(instance, "plan_study", {})
    assert (shard_run.status, plan_run.status) == (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.QUEUED)
    assert {tag: shard_run.tags[tag] for tag in TAGS} == TAGS
    assert not set(TAGS) & set(plan_run.tags)
    assert [found.run_id for found in instance.get_runs(dg.RunsFilter(tags=TAGS))] == [shard_run.run_id]


def test_each_config_limits_its_own_runs_and_a_changed_file_counts_at_once(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "configs"
    monkeypatch.setenv("BACKFILL_CONFIG_DIR", str(configs))
    assert limits(instance) == [ALL_SHARDS, HOST_LIMIT]
    write_yaml(configs, "a.yaml", name="a", processing={"max_concurrent_pds": 2})
    assert limits(instance) == [ALL_SHARDS, HOST_LIMIT, {"key": "backfill/name", "value": "a", "limit": 2}]
    write_yaml(configs, "a.yaml", name="a", processing={"max_concurrent_pds": 1})
    assert limits(instance)[2]["limit"] == 1


def test_none_of_several_configs_takes_the_last_place(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is first come, first served: hundreds of one config's shards would keep the others out for days."""
    monkeypatch.setenv("BACKFILL_CONFIG_DIR", str(tmp_path))
    write_yaml(tmp_path, "a.yaml", name="a")
    assert limits(instance)[2:] == [{"key": "backfill/name", "value": "a", "limit": 32}]
    write_yaml(tmp_path, "b.yaml", name="b", processing={"max_concurrent_pds": 1})
    assert limits(instance)[2:] == [
        {"key": "backfill/name", "value": "a", "limit": 3},
        {"key": "backfill/name", "value": "b", "limit": 1},
    ]


def test_files_are_read_again_only_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BACKFILL_CONFIG_DIR", str(tmp_path))
    (tmp_path / "broken.yaml").write_text("backfill: 1\n")
    coordinator = PdsHostRunCoordinator(max_concurrent_runs=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert coordinator.get_run_queue_config().tag_concurrency_limits == [HOST_LIMIT]
    assert len([record for record in caplog.records if "no limit of runs" in record.message]) == 1


def test_the_host_limit_stands_even_if_dagster_yaml_forgets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_CONFIG_DIR", str(tmp_path))
    other = {"key": "team", "limit": 2}
    coordinator = PdsHostRunCoordinator(tag_concurrency_limits=[other])
    assert coordinator.get_run_queue_config().tag_concurrency_limits == [other, HOST_LIMIT]


def test_dagster_yaml_has_no_block_that_would_silence_the_coordinator() -> None:
    assert "concurrency" not in yaml.safe_load(LOCAL_YAML.read_text())
