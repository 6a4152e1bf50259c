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
from backfill_dagster.orchestration import names, snippets
from backfill_dagster.orchestration.columns import (
    coverage_schema,
    ledger_schema,
    network_schema,
    plan_schema,
    records_schema,
    source_schema,
)
from backfill_dagster.orchestration.failures import clear_failures
from backfill_dagster.orchestration.metadata import (
    ROW_COUNT,
    coverage_metadata,
    plan_metadata,
    plan_text,
    source_metadata,
    unresolved_text,
)
from backfill_dagster.orchestration.ops import fetch_repos_op, load_shard_op
from backfill_dagster.orchestration.partitions import register_partitions, shard_partitions
from backfill_dagster.orchestration.progress_log import ProgressLog
from backfill_dagster.orchestration.resources import backfill_of, source_resource_of
from backfill_dagster.report import build_coverage, write_report
from backfill_dagster.worker.planning import plan_backfill

OWNERS = ["team:backfill"]

SCHEMA = "dagster/column_schema"

REPORT_CRON = "*/10 * * * *"
"""When a report may be written anew: no run for each of the shards that end in between."""


def did_list(config: BackfillConfig) -> dg.AssetSpec:
    """The list of DIDs: comes from outside, is shown for where it comes from."""
    return dg.AssetSpec(
        [config.name, names.DID_LIST],
        description="One row per DID to back fill. Comes from outside; the plan reads it anew each time.",
        group_name=config.name,
        owners=OWNERS,
        kinds={_source_kind(config)},
        metadata={
            SCHEMA: source_schema(config.source.keep_columns),
            snippets.SNIPPET: snippets.markdown(snippets.did_list_sql(config)),
            **_source_metadata(config),
        },
    )


def pds_network(config: BackfillConfig) -> dg.AssetSpec:
    """The hosts that repos are fetched from: outside too."""
    return dg.AssetSpec(
        [config.name, names.PDS_NETWORK],
        description="One row per repo of the PDS hosts that the plan names. Comes from outside: "
        f"`{names.backfill_job(config.name)}` fetches the repos of the list's DIDs from there.",
        group_name=config.name,
        owners=OWNERS,
        kinds={"bluesky"},
        metadata={
            SCHEMA: network_schema(),
            snippets.SNIPPET: snippets.markdown(snippets.network_sql(config)),
            "requests_per_second": config.processing.requests_per_second,
            "concurrent_requests": config.processing.concurrent_requests,
            "plc_url": dg.MetadataValue.url(config.identity.plc_url),
        },
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
        config_schema={
            "refresh": dg.Field(
                bool,
                default_value=False,
                description="Ask every host for what is new since the last fetch: the shards' next runs do.",
            )
        },
        metadata={SCHEMA: plan_schema(), snippets.SNIPPET: snippets.markdown(snippets.plan_sql(config))},
        description="One row per DID: its PDS host and its shard, which is the partition that fetches it. "
        "Planning again adds what is new and moves nothing.",
    )
    def plan_asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        source, refresh = (
            source_resource_of(context.resources, name),
            bool(context.op_execution_context.op_config["refresh"]),
        )
        with clear_failures(), backfill_of(context.resources, name).open_state(create=True, source=source) as state:
            on_resolved = ProgressLog(context.log.info, monotonic=state.effects.monotonic).plan
            result = asyncio.run(
                plan_backfill(state, run_id=context.run.run_id, refresh=refresh, on_resolved=on_resolved)
            )
            registered = register_partitions(context.instance, name, result.plan.shards())
            metadata = plan_metadata(result)
        context.log_event(dg.AssetObservation([name, names.DID_LIST], metadata=source_metadata(result)))
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

    def compose(shard_plan: Any, pds_network: Any) -> Any:
        outputs = fetch_repos(load_shard(shard_plan=shard_plan, pds_network=pds_network))
        return {output: getattr(outputs, output) for output in outs}

    make: Callable[..., dg.AssetsDefinition] = dg.graph_multi_asset(
        name=f"{name}__shard",
        group_name=name,
        partitions_def=shard_partitions(name),
        can_subset=False,
        ins={
            asset: dg.AssetIn([name, asset], dagster_type=dg.Nothing) for asset in (names.SHARD_PLAN, names.PDS_NETWORK)
        },
        outs=outs,
    )
    return make(compose)


def coverage_report(config: BackfillConfig) -> dg.AssetsDefinition:
    """The report over all shards, as they stand when it is asked for."""
    name = config.name

    @dg.asset(
        key=[name, names.COVERAGE_REPORT],
        deps=[[name, asset] for asset in names.shard_assets(config.record_types)],
        group_name=name,
        owners=OWNERS,
        kinds={"html", "json"},
        required_resource_keys={names.state_resource(name)},
        automation_condition=report_condition(),
        metadata={SCHEMA: coverage_schema(), snippets.SNIPPET: snippets.markdown(snippets.coverage_sql(config))},
        description="One row per host and outcome: what is there, what is missing, and why; in the report also by "
        "record type and kept column. Covers what has been committed when it runs.",
    )
    def report_asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with clear_failures(), backfill_of(context.resources, name).open_state() as state:
            coverage = build_coverage(state)
            keys = write_report(state, coverage)
            paths = {key.rsplit("/", 1)[-1]: state.store.path(key) for key in keys[:2]}
        return dg.MaterializeResult(metadata=coverage_metadata(coverage, paths))

    return report_asset


def report_condition() -> dg.AutomationCondition[dg.AssetKey]:
    """Something upstream has changed since the last report was asked for, none is in progress, ten minutes are round.

    `eager()` would never come true while a partition of a shard asset is failed. `any_deps_updated` and
    `since_last_handled` would forget a shard that ends while the report is being written: they don't compare times.
    """
    news = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())
    since_asked = news.since(dg.AutomationCondition.newly_requested())
    is_round = dg.AutomationCondition.cron_tick_passed(REPORT_CRON)
    return is_round & since_asked & ~dg.AutomationCondition.in_progress()


def _shard_outs(config: BackfillConfig) -> dict[str, dg.AssetOut]:
    outs = {
        names.records_asset(entry): dg.AssetOut(
            key=[config.name, names.records_asset(entry)],
            dagster_type=dg.Nothing,
            description=f"One row per record of {_collections(entry)}, with its AT URI and CID, from checked repos. "
            f"`{ROW_COUNT}` counts the shard's live rows.",
            owners=OWNERS,
            kinds={"parquet"},
            metadata={
                "record_types": entry,
                SCHEMA: records_schema(entry, config.records.raw),
                snippets.SNIPPET: snippets.markdown(snippets.records_sql(config, entry)),
            },
        )
        for entry in config.record_types
    }
    outs[names.REPO_OUTCOMES] = dg.AssetOut(
        key=[config.name, names.REPO_OUTCOMES],
        dagster_type=dg.Nothing,
        description="One row per DID of the shard: what became of its repo, with the evidence.",
        owners=OWNERS,
        kinds={config.storage.type},
        metadata={SCHEMA: ledger_schema(), snippets.SNIPPET: snippets.markdown(snippets.outcomes_sql(config))},
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
