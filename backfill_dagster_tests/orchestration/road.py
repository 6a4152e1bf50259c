"""A config on a network, with Dagster's definitions and an instance for it, and what its runs came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from backfill_dagster.model import Shard
from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster_tests.orchestration.network import ThreadedNetwork
from backfill_dagster_tests.road import write_config

RECORD_TYPES = ["app.bsky.feed.post", "app.bsky.graph.*"]


class Road:
    """Plans and runs in this process."""

    def __init__(self, folder: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, **changes: Any) -> None:
        self.net = net
        self.instance = instance
        self.folder = folder
        self.path = write_config(
            folder, net.network.plc_url, net.network.dids, **({"record_types": RECORD_TYPES} | changes)
        )
        self.defs = build_definitions(folder)

    def run(
        self, job: str, *, key: str | None = None, raise_on_error: bool = True, **options: Any
    ) -> dg.ExecuteInProcessResult:
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance, partition_key=key, raise_on_error=raise_on_error, **options
        )

    def plan(self) -> list[str]:
        self.run("plan_study")
        return list(self.instance.get_dynamic_partitions("did_shards__study"))

    def host_number(self, key: str) -> int:
        """The network's number of a partition's host, as faults name it."""
        ports = [info.url.rsplit(":", 1)[1] for info in self.net.network.hosts]
        return ports.index(Shard.parse(key).host.split("_")[1])

    def faults(self, *faults: Any) -> None:
        self.net.do(self.net.network.set_faults(list(faults)))


def values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.value for name, value in metadata.items()}


def materialized(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    [event] = [
        event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey(["study", asset])
    ]
    return values(event.materialization.metadata)


def failure_of(result: dg.ExecuteInProcessResult) -> dg.DagsterEvent:
    assert not result.success
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    data = failure_of(result).step_failure_data
    assert data.user_failure_data is not None
    return data.user_failure_data.description or ""
