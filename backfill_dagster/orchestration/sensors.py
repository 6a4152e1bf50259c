"""The sensors of one backfill: its source has changed, its plan has shards that Dagster doesn't know or has to launch.

Those over the whole code location are in `location_sensors`.
"""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import hashlib

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from backfill_dagster.aws import AwsError
from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import UsageError
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.jobs import BackfillJobs
from backfill_dagster.orchestration.looks import NoAnswerError, look
from backfill_dagster.orchestration.new_shards import Memory, Tick, tick
from backfill_dagster.orchestration.partitions import shard_partitions
from backfill_dagster.orchestration.resources import BackfillResource, DidSource
from backfill_dagster.sources import open_source
from backfill_dagster.state import has_state

SOURCE_SECONDS = 60
SHARDS_SECONDS = 30

PLAN_AGAIN_SECONDS = 600
"""After a plan that failed, until the same content is planned once more."""

_ASKED_TAG = "backfill/source"
"""Tag of a plan's run that was asked for by the sensor: which content for."""


def backfill_sensors(
    config: BackfillConfig, jobs: BackfillJobs, backfill: BackfillResource, source: DidSource
) -> list[dg.SensorDefinition]:
    """`source_changed_<name>`, off until someone turns it on, and `new_shards_<name>`, which is on."""
    return [_source_changed(config.name, jobs.plan, backfill, source), _new_shards(config, jobs.shard, backfill)]


def _source_changed(
    name: str, job: UnresolvedAssetJobDefinition, backfill: BackfillResource, source: DidSource
) -> dg.SensorDefinition:
    @dg.sensor(
        name=names.source_sensor(name),
        job=job,
        minimum_interval_seconds=SOURCE_SECONDS,
        description=f"Launches {names.plan_job(name)} when the content of the list of DIDs is another than the last "
        "plan has seen.",
    )
    def source_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            planned, version, generation = look(f"the source of {name}", lambda: _versions(backfill, source))
        except (UsageError, AwsError, NoAnswerError) as error:
            return dg.SensorResult(skip_reason=f"the source can't be looked at: {error}")
        if version == planned:
            return dg.SensorResult(skip_reason="the source is as the last plan has seen it")
        asked = hashlib.sha256(f"{generation}:{version}".encode()).hexdigest()
        tries = context.instance.get_runs(dg.RunsFilter(tags={_ASKED_TAG: asked}), limit=1)
        if tries and not _may_ask_again(context.instance, tries[0], backfill.effects().clock()):
            return dg.SensorResult(skip_reason=f"run {tries[0].run_id} was asked to plan this content")
        if not tries and asked == context.cursor:
            return dg.SensorResult(skip_reason="a plan has been asked for already for this content")
        key = asked if not tries else f"{asked}:{tries[0].run_id}"
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=key, tags={_ASKED_TAG: asked})], cursor=asked)

    return source_changed


def _versions(backfill: BackfillResource, source: DidSource) -> tuple[str | None, str, int]:
    """The source's version as the last plan saw it, its version now, the plan's generation.

    Raises:
        UsageError: the config or the source can't be read, or this version can't.
        StateError: the state can't.
    """
    config = backfill.config(source)
    version = open_source(config.source, config.resolve).version()
    if not has_state(config):
        return None, version, 0
    with backfill.open_state() as state:
        plan = backfill.newest_plan(state)
    return plan.metadata.get("source_version"), version, plan.generation


def _may_ask_again(instance: dg.DagsterInstance, run: dg.DagsterRun, now_seconds: float) -> bool:
    """Whether a plan's run has failed, and long enough ago to try the same content once more."""
    if run.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
        return False
    stats = instance.get_run_stats(run.run_id)
    return stats.end_time is None or now_seconds - stats.end_time >= PLAN_AGAIN_SECONDS


def _new_shards(
    config: BackfillConfig, job: UnresolvedAssetJobDefinition, backfill: BackfillResource
) -> dg.SensorDefinition:
    name = config.name
    launches = (
        "shards that a plan has put DIDs into (`auto_launch`), and all with work" if config.auto_launch else "all"
    )

    @dg.sensor(
        name=names.shards_sensor(name),
        job=job,
        minimum_interval_seconds=SHARDS_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Registers shards of the plan that Dagster doesn't know, after plans from the terminal too. "
        f"Launches {launches} after `{names.refresh_schedule(name)}`.",
    )
    def new_shards(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance, memory = context.instance, Memory.from_cursor(context.cursor)

        def tick_now() -> Tick:
            with backfill.open_state() as state:
                return tick(instance, state, backfill.newest_plan(state), memory)

        try:
            done = look(f"the state of {name}", tick_now)
        except UsageError as error:
            return dg.SensorResult(skip_reason=str(error))
        except (AwsError, NoAnswerError) as error:
            # A config whose bucket or table isn't there yet has missed nothing; one that has been planned may have.
            if instance.get_dynamic_partitions(names.partitions(name)):
                raise
            return dg.SensorResult(skip_reason=f"nothing is planned here yet, and the state is out of reach: {error}")
        added = [shard_partitions(name).build_add_request(done.missing)] if done.missing else []
        requests = [dg.RunRequest(partition_key=key, run_key=f"{done.wave}:{key}") for key in done.launch]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else done.text,
            dynamic_partitions_requests=added,
            cursor=done.memory.cursor,
        )

    return new_shards
