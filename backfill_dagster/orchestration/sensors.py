"""The sensors of one backfill: its source has changed, its plan has shards that Dagster doesn't know or has to launch.

Those over the whole code location are in `location_sensors`.
"""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import hashlib

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import SourceError, UsageError
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.new_shards import Memory, tick
from backfill_dagster.orchestration.partitions import shard_partitions
from backfill_dagster.orchestration.resources import backfill_of, source_resource_of
from backfill_dagster.sources import open_source
from backfill_dagster.state import has_state

SOURCE_SECONDS = 60
SHARDS_SECONDS = 30


def backfill_sensors(
    config: BackfillConfig, plan_job: UnresolvedAssetJobDefinition, shard_job: UnresolvedAssetJobDefinition
) -> list[dg.SensorDefinition]:
    """`source_changed_<name>`, off until someone turns it on, and `new_shards_<name>`, which is on."""
    return [_source_changed(config, plan_job), _new_shards(config, shard_job)]


def _source_changed(config: BackfillConfig, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    name = config.name

    @dg.sensor(
        name=names.source_sensor(name),
        job=job,
        minimum_interval_seconds=SOURCE_SECONDS,
        required_resource_keys={names.state_resource(name), names.source_resource(name)},
        description=f"Launches {names.plan_job(name)} when the content of the list of DIDs is another than the last "
        "plan has seen.",
    )
    def source_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        backfill = backfill_of(context.resources, name)
        config = backfill.config(source_resource_of(context.resources, name))
        try:
            source = open_source(config.source, config.resolve)
            version = source.version()
        except (SourceError, UsageError) as error:
            return dg.SensorResult(skip_reason=f"the source can't be looked at: {error}")
        generation, planned = 0, None
        if has_state(config):
            with backfill.open_state() as state:
                plan = backfill.newest_plan(state)
            generation, planned = plan.generation, plan.metadata.get("source_version")
        asked = hashlib.sha256(f"{generation}:{version}".encode()).hexdigest()
        if version == planned:
            return dg.SensorResult(skip_reason="the source is as the last plan has seen it")
        if asked == context.cursor:
            return dg.SensorResult(skip_reason="a plan has been asked for already for this content")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=asked)], cursor=asked)

    return source_changed


def _new_shards(config: BackfillConfig, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    name = config.name
    launches = (
        "shards that a plan has put DIDs into (`auto_launch`), and all with work" if config.auto_launch else "all"
    )

    @dg.sensor(
        name=names.shards_sensor(name),
        job=job,
        minimum_interval_seconds=SHARDS_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={names.state_resource(name)},
        description="Registers shards of the plan that Dagster doesn't know, after plans from the terminal too. "
        f"Launches {launches} after `{names.refresh_schedule(name)}`.",
    )
    def new_shards(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        backfill = backfill_of(context.resources, name)
        try:
            with backfill.open_state() as state:
                done = tick(
                    context.instance,
                    state,
                    backfill.newest_plan(state),
                    Memory.from_cursor(context.cursor),
                )
        except UsageError as error:
            return dg.SensorResult(skip_reason=str(error))
        added = [shard_partitions(name).build_add_request(done.missing)] if done.missing else []
        requests = [dg.RunRequest(partition_key=key, run_key=f"{done.wave}:{key}") for key in done.launch]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else done.text,
            dynamic_partitions_requests=added,
            cursor=done.memory.cursor,
        )

    return new_shards
