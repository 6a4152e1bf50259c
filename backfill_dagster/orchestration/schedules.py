"""The schedules of one backfill: go on with what is left, and fetch what is new. Off until someone turns them on."""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import UsageError
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.jobs import BackfillJobs
from backfill_dagster.orchestration.launching import Launch, find_launch, longest_waiting_first
from backfill_dagster.orchestration.looks import look
from backfill_dagster.orchestration.partitions import register_partitions
from backfill_dagster.orchestration.resources import BackfillResource

Requests = dg.SkipReason | list[dg.RunRequest]


def backfill_schedules(
    config: BackfillConfig, jobs: BackfillJobs, backfill: BackfillResource
) -> list[dg.ScheduleDefinition]:
    """`resume_<name>` and `refresh_<name>`, each where the config has a cron string for it."""
    found = []
    if config.schedule.resume_cron is not None:
        found.append(_resume(config.name, config.schedule.resume_cron, jobs.shard, backfill))
    if config.schedule.refresh_cron is not None:
        found.append(_refresh(config.name, config.schedule.refresh_cron, jobs.plan))
    return found


def _resume(
    name: str, cron: str, job: UnresolvedAssetJobDefinition, backfill: BackfillResource
) -> dg.ScheduleDefinition:

    @dg.schedule(
        name=names.resume_schedule(name),
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        description=f"Launches the shards of {name} that have DIDs left to fetch or to retry; never one that is queued "
        "or running, or whose host has asked to be let alone for a while.",
        tags={names.KIND_TAG: "shard"},
    )
    def resume(context: dg.ScheduleEvaluationContext) -> Requests:
        instance = context.instance

        def find() -> Launch:
            with backfill.open_state() as state:
                plan = backfill.newest_plan(state)
                # After a plan from the terminal: Dagster refuses the whole tick for one partition it doesn't know.
                register_partitions(instance, name, plan.shards())
                return find_launch(instance, state, plan, order=longest_waiting_first(instance, name))

        try:
            launch = look(f"the shards of {name}", find)
        except UsageError as error:
            return dg.SkipReason(str(error))
        if launch.more:
            context.log.info(f"{launch.more:,} more shards may have work; later ticks look at them")
        tick = context.scheduled_execution_time.isoformat()
        requests = [dg.RunRequest(partition_key=key, run_key=f"{tick}:{key}") for key in launch.keys]
        return requests or dg.SkipReason(launch.text)

    return resume


def _refresh(name: str, cron: str, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=names.refresh_schedule(name),
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        description=f"Plans {name} again with a new refresh round; when that has gone well, the sensor "
        f"{names.shards_sensor(name)} launches every shard, which fetches what is new since each DID's last rev.",
    )
    def refresh(context: dg.ScheduleEvaluationContext) -> Requests:
        if _is_planning(context.instance, name):
            return dg.SkipReason(f"a run of {names.plan_job(name)} is queued or going on")
        return [
            dg.RunRequest(
                run_key=context.scheduled_execution_time.isoformat(),
                run_config={"ops": {names.plan_op(name): {"config": {"refresh": True}}}},
                tags={names.LAUNCH_TAG: "pending"},
            )
        ]

    return refresh


def _is_planning(instance: dg.DagsterInstance, name: str) -> bool:
    statuses = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    return bool(instance.get_runs(dg.RunsFilter(job_name=names.plan_job(name), statuses=statuses), limit=1))
