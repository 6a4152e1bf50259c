"""Plans mirrored into Dagster's dynamic partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
            "b.example~0000",
            "a.example~0001",
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


class BeatenOnce:
    """A Dagster instance to which another planner adds the same shards at the very moment when we do."""

    def __init__(self, instance: dg.DagsterInstance, theirs: list[str]) -> None:
        self._instance = instance
        self._theirs = theirs

    def get_dynamic_partitions(self, name: str) -> list[str]:
        return list(self._instance.get_dynamic_partitions(name))

    def add_dynamic_partitions(self, name: str, keys: list[str]) -> None:
        if self._theirs:
            theirs, self._theirs = self._theirs, []
            self._instance.add_dynamic_partitions(name, theirs)
            raise RuntimeError("UNIQUE constraint failed: dynamic_partitions.partition")
        self._instance.add_dynamic_partitions(name, keys)


def test_of_two_planners_at_once_both_have_their_shards_registered() -> None:
    keys = ["a.example~0000", "b.example~0000", "c.example~0000"]
    with dg.DagsterInstance.ephemeral() as instance:
        ours: Any = BeatenOnce(instance, keys[:2])
        assert register_partitions(ours, "study", keys[1:]) == 1
        assert sorted(instance.get_dynamic_partitions("did_shards__study")) == keys


def test_an_instance_that_always_refuses_is_an_error_in_the_end() -> None:
    class Refusing(BeatenOnce):
        def add_dynamic_partitions(self, name: str, keys: list[str]) -> None:
            raise RuntimeError("the database is gone")

    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(RuntimeError, match="is gone"):
        refusing: Any = Refusing(instance, [])
        register_partitions(refusing, "study", ["a.example~0000"])
