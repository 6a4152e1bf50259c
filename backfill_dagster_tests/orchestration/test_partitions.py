"""Plans mirrored into Dagster's dynamic partitions."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from backfill_dagster.orchestration import register_partitions, register_with_local_instance
from backfill_dagster.orchestration.partitions import shard_partitions


def test_registering_again_adds_only_what_is_new() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert register_partitions(instance, "study", ["b.example~0000", "a.example~0001", "a.example~0000"]) == 3
        assert register_partitions(instance, "study", ["b.example~0000", "b.example~0001"]) == 1
        assert list(instance.get_dynamic_partitions("did_shards__study")) == [
            "a.example~0000",
            "a.example~0001",
            "b.example~0000",
            "b.example~0001",
        ]


def test_the_reserved_shard_is_no_partition() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert register_partitions(instance, "study", ["_unroutable"]) == 0
        assert list(instance.get_dynamic_partitions("did_shards__study")) == []


@pytest.mark.parametrize("key", ["", "a.example", "a.example~1", "a\n~0000", "a,b~0000", "a...b~0000~0001"])
def test_what_is_no_partition_key_is_refused(key: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(ValueError, match="not a partition key"):
            register_partitions(instance, "study", ["a.example~0000", key])
        assert list(instance.get_dynamic_partitions("did_shards__study")) == []


def test_definition_has_the_contract_name() -> None:
    assert shard_partitions("study").name == "did_shards__study"


def test_without_a_dagster_home_nothing_is_registered(tmp_path: Path) -> None:
    assert register_with_local_instance("study", ["a.example~0000"], {}) is None
    assert register_with_local_instance("study", ["a.example~0000"], {"DAGSTER_HOME": str(tmp_path / "no")}) is None


def test_a_plan_from_the_terminal_reaches_the_instance_of_dagster_home(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environ = {"DAGSTER_HOME": str(tmp_path)}
    assert register_with_local_instance("study", ["a.example~0000", "_unroutable"], environ) == 1
    assert register_with_local_instance("study", ["a.example~0000"], environ) == 0
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert list(instance.get_dynamic_partitions("did_shards__study")) == ["a.example~0000"]
