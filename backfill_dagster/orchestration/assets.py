"""The assets of one backfill: the list, the plan, one per entry of `record_types`, the ledger, the report.

Those of a shard are one graph of ops (`ops.py`): so the job has a Partitions tab, and the catalog counts materialized
and failed partitions for each of them.
"""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import asyncio
from collections.abc import Callable
from typing import Any

import dagster as dg

from backfill_dagster.config import BackfillConfig, FileSource, InlineSource, S3Source, SqliteSource
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.columns import ledger_schema, records_schema
from backfill_dagster.orchestration.failures import clear_failures
from backfill_dagster.orchestration.metadata import (
    ROW_COUNT,
    coverage_metadata,
    plan_metadata,
    plan_text,
    unresolved_text,
)
from backfill_dagster.orchestration.ops import fetch_repos_op, load_shard_op
from backfill_dagster.orchestration.partitions import register_partitions, shard_partitions
from backfill_dagster.orchestration.progress_log import ProgressLog
from backfill_dagster.orchestration.resources import BackfillResource, DidSource
from backfill_dagster.report import build_coverage, write_report
from backfill_dagster.worker.planning import plan_backfill

OWNERS = ["team:backfill"]


def did_list(config: BackfillConfig) -> dg.AssetSpec:
    """The list of DIDs: comes from outside, is shown for where it comes from."""
    return dg.AssetSpec(
        [config.name, names.DID_LIST],
        description="One row per DID to back fill. Comes from outside; the plan reads it anew each time.",
        group_name=config.name,
        owners=OWNERS,
        kinds={_source_kind(config)},
        metadata=_source_metadata(config),
    )


def shard_plan(config: BackfillConfig) -> dg.AssetsDefinition:
    """The plan: DIDs to shards, and the shards as Dagster's partitions."""
    name = config.name

    @dg.asset(
        key=[name, names.SHARD_PLAN],
        deps=[[name, names.DID_LIST]],
        group_name=name,
        owners=OWNERS,
        kinds={"parquet"},
        required_resource_keys={names.state_resource(name), names.source_resource(name)},
        description="One row per DID: its PDS host and its shard, which is the partition that fetches it. "
        "Planning again adds what is new and moves nothing.",
    )
    def plan_asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        source = getattr(context.resources, names.source_resource(name))
        assert isinstance(source, DidSource)
        with clear_failures(), _backfill(context, name).open_state(create=True, source=source) as state:
            on_resolved = ProgressLog(context.log.info, monotonic=state.effects.monotonic).plan
            result = asyncio.run(plan_backfill(state, run_id=context.run.run_id, on_resolved=on_resolved))
            registered = register_partitions(context.instance, name, result.plan.shards())
            metadata = plan_metadata(result)
        context.log.info(f"{plan_text(result).splitlines()[0]}; {registered:,} new partitions")
        if result.unresolved:
            context.log.warning(unresolved_text(result.unresolved))
        return dg.MaterializeResult(metadata=metadata)

    return plan_asset


def shard_assets(config: BackfillConfig) -> dg.AssetsDefinition:
    """The partitioned assets: one for each entry of `record_types`, and the outcomes."""
    name = config.name
    outs = _shard_outs(config)
    load_shard = load_shard_op(name).alias("load_shard")
    fetch_repos = fetch_repos_op(config).alias("fetch_repos")

    def compose(shard_plan: Any) -> Any:
        outputs = fetch_repos(load_shard(shard_plan))
        return {output: getattr(outputs, output) for output in outs}

    make: Callable[..., dg.AssetsDefinition] = dg.graph_multi_asset(
        name=f"{name}__shard",
        group_name=name,
        partitions_def=shard_partitions(name),
        can_subset=False,
        ins={names.SHARD_PLAN: dg.AssetIn([name, names.SHARD_PLAN], dagster_type=dg.Nothing)},
        outs=outs,
    )
    return make(compose)


def coverage_report(config: BackfillConfig) -> dg.AssetsDefinition:
    """The report over all shards, as they stand when it is asked for."""
    name = config.name

    @dg.asset(
        key=[name, names.COVERAGE_REPORT],
        deps=[dg.AssetKey([name, asset]) for asset in _shard_outs(config)],
        group_name=name,
        owners=OWNERS,
        kinds={"html", "json"},
        required_resource_keys={names.state_resource(name)},
        description="One report over the whole list: what is there, what is missing, and why; by host, outcome and "
        "record type. Covers what has been committed when it runs.",
    )
    def report_asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with clear_failures(), _backfill(context, name).open_state() as state:
            coverage = build_coverage(state)
            keys = write_report(state, coverage)
            paths = {key.rsplit("/", 1)[-1]: state.store.path(key) for key in keys[:2]}
        return dg.MaterializeResult(metadata=coverage_metadata(coverage, paths))

    return report_asset


def _shard_outs(config: BackfillConfig) -> dict[str, dg.AssetOut]:
    outs = {
        names.records_asset(entry): dg.AssetOut(
            key=[config.name, names.records_asset(entry)],
            dagster_type=dg.Nothing,
            description=f"One row per record of {_collections(entry)}, with its AT URI and CID, from checked repos. "
            f"`{ROW_COUNT}` counts the shard's live rows.",
            owners=OWNERS,
            kinds={"parquet"},
            metadata={"record_types": entry, "dagster/column_schema": records_schema(entry, config.records.raw)},
        )
        for entry in config.record_types
    }
    outs[names.REPO_OUTCOMES] = dg.AssetOut(
        key=[config.name, names.REPO_OUTCOMES],
        dagster_type=dg.Nothing,
        description="One row per DID of the shard: what became of its repo, with the evidence.",
        owners=OWNERS,
        kinds={config.storage.type},
        metadata={"dagster/column_schema": ledger_schema()},
    )
    return outs


def _collections(entry: str) -> str:
    return f"any collection under `{entry[:-2]}`" if entry.endswith(".*") else f"collection `{entry}`"


def _source_kind(config: BackfillConfig) -> str:
    match config.source:
        case FileSource():
            return config.source.file_format
        case InlineSource():
            return "yaml"
        case _:
            return config.source.type


def _source_metadata(config: BackfillConfig) -> dict[str, Any]:
    source = config.source
    metadata: dict[str, Any] = {"source_type": source.type, "config": dg.MetadataValue.path(str(config.path))}
    match source:
        case InlineSource():
            metadata["dagster/row_count"] = len(source.dids)
        case SqliteSource():
            metadata |= {
                "path": str(config.resolve(source.path)),
                "query": dg.MetadataValue.md(f"```\n{source.query}\n```"),
            }
        case FileSource():
            metadata |= {"path": str(config.resolve(source.path)), "format": source.file_format}
        case S3Source():
            metadata |= {"path": source.path} | ({"query": source.query} if source.query else {})
    return metadata


def _backfill(context: dg.AssetExecutionContext, name: str) -> BackfillResource:
    resource = getattr(context.resources, names.state_resource(name))
    assert isinstance(resource, BackfillResource)
    return resource
