"""The jobs of one backfill: plan, the partitioned shard job with its tags, report."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from backfill_dagster.config import BackfillConfig
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.partitions import shard_partitions
from backfill_dagster.orchestration.run_tags import shard_tags

AHEAD = {"dagster/priority": "10"}
"""Plans and reports are short, and a plan decides what the shards in the queue are good for: they go first."""


@dataclass(frozen=True)
class BackfillJobs:
    """The jobs of one backfill: `plan_<name>`, `backfill_<name>` (partitioned) and `report_<name>`."""

    plan: UnresolvedAssetJobDefinition
    shard: UnresolvedAssetJobDefinition
    report: UnresolvedAssetJobDefinition


def backfill_jobs(config: BackfillConfig) -> BackfillJobs:
    """Define them."""
    name = config.name
    shard_assets = names.shard_assets(config.record_types)
    return BackfillJobs(
        plan=dg.define_asset_job(
            names.plan_job(name),
            selection=_assets(name, names.SHARD_PLAN),
            description=f"Reads the DIDs of {name}, finds their PDS hosts, and makes shards (partitions) of them.",
            tags={names.KIND_TAG: "plan", **AHEAD},
        ),
        shard=dg.define_asset_job(
            names.backfill_job(name),
            selection=_assets(name, *shard_assets),
            description=f"Fetches one shard of {name}: the repos of DIDs of one PDS host, into checked Parquet.",
            tags={names.KIND_TAG: "shard"},
            config=dg.PartitionedConfig(
                partitions_def=shard_partitions(name),
                run_config_for_partition_key_fn=lambda key: {},
                tags_for_partition_key_fn=lambda key: shard_tags(name, key),
            ),
        ),
        report=dg.define_asset_job(
            names.report_job(name),
            selection=_assets(name, names.COVERAGE_REPORT),
            description=f"Writes the coverage report of {name}: what is there, what is missing, and why.",
            tags={names.KIND_TAG: "report", **AHEAD},
        ),
    )


def _assets(name: str, *assets: str) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*([name, asset] for asset in assets))
