"""The ops of a shard run: `load_shard` checks what the partition key asks for, `fetch_repos` does it.

Everything they need comes from the partition key and the config, nothing is handed from one to the other: so a run
can be taken up from either, in any process.
"""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg

from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import BackfillError, FencedError, LeaseHeldError, StateError, UnknownShardError
from backfill_dagster.model import Shard
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.checks import judge_shard, record_verdicts
from backfill_dagster.orchestration.failures import clear_failures
from backfill_dagster.orchestration.metadata import (
    Metadata,
    numbers,
    outcomes_metadata,
    records_metadata,
    shard_numbers,
)
from backfill_dagster.orchestration.progress_log import ProgressLog
from backfill_dagster.orchestration.resources import BackfillResource, backfill_of
from backfill_dagster.orchestration.run_tags import page_tag, shard_tags
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState, has_state
from backfill_dagster.worker import ShardResult, run_shard
from backfill_dagster.worker.backfill import find_shard

REST_SECONDS = 600
"""How long a host that stopped answering is let alone, unless it says itself for how long."""


def load_shard_op(name: str) -> dg.OpDefinition:
    """The op that checks the partition key against the plan and puts the host's tag on the run.

    Runs that went round the queue (`dagster job execute`, `dagster asset materialize`) get their tags here.
    """

    @dg.op(
        name=f"{name}__load_shard",
        description="Looks the partition key up in the plan; an unknown one fails with the known ones named.",
        ins={asset: dg.In(dg.Nothing) for asset in (names.SHARD_PLAN, names.PDS_NETWORK)},
        out=dg.Out(dg.Nothing),
        required_resource_keys={names.state_resource(name)},
    )
    def load_shard(context: dg.OpExecutionContext) -> None:
        backfill = backfill_of(context.resources, name)
        with clear_failures(), _opened(context, backfill) as state:
            shard = _shard(context, backfill, state)
            count = backfill.plan(state).shards()[shard.key]
        tags = shard_tags(name, shard.key) | page_tag(name)
        if names.RETRY_AFTER_TAG in context.run.tags:
            tags[names.RETRY_AFTER_TAG] = ""  # a re-execution copies the tags of the run that failed
        context.instance.add_run_tags(context.run_id, tags)
        context.log.info(f"{shard.key}: {count:,} DIDs of PDS host {shard.host}")

    return load_shard


def fetch_repos_op(config: BackfillConfig) -> dg.OpDefinition:
    """The op that fetches a shard's pending repos and commits them; an output for each of the shard's assets."""
    name = config.name
    outputs = names.shard_assets(config.record_types)

    @dg.op(
        name=f"{name}__fetch_repos",
        description="Fetches, checks and commits the repos of the shard's pending DIDs.",
        ins={"shard": dg.In(dg.Nothing)},
        out={output: dg.Out(dg.Nothing) for output in outputs},
        required_resource_keys={names.state_resource(name)},
    )
    def fetch_repos(context: dg.OpExecutionContext) -> Iterator[dg.Output[None]]:
        backfill = backfill_of(context.resources, name)
        with clear_failures(), _opened(context, backfill) as state:
            with checks_of_a_failure(context, backfill, state):
                result = _run_shard(context, backfill, state)
            metadata = shard_metadata(config, result)
            if result.stopped:
                retry_at = retry_time(result, state.effects.clock())
                context.instance.add_run_tags(context.run_id, {names.RETRY_AFTER_TAG: retry_at})
            if result.host_down:
                _observe(context, name, metadata)
                _record_checks(context, backfill, state)
                raise host_failure(result, retry_at)
        for output in outputs:
            yield dg.Output(None, output, metadata=metadata[output])

    return fetch_repos


def shard_metadata(config: BackfillConfig, result: ShardResult) -> dict[str, Metadata]:
    """Asset name -> metadata, for all assets of a shard."""
    metadata = {names.records_asset(entry): records_metadata(result, entry) for entry in config.record_types}
    return metadata | {names.REPO_OUTCOMES: outcomes_metadata(result)}


def retry_time(result: ShardResult, now_seconds: float) -> str:
    """When a shard that stopped early should be tried again, ISO 8601 UTC: as the host says, else in a while.

    Args:
        result: how the shard stands.
        now_seconds: wall clock, seconds since the epoch.
    """
    wait = REST_SECONDS if result.retry_after_seconds is None else result.retry_after_seconds
    return datetime.fromtimestamp(now_seconds + wait, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def host_failure(result: ShardResult, retry_at: str) -> dg.Failure:
    """The failure of a shard whose host stopped answering: why, what is left, when to try again."""
    whose = "" if result.retry_after_seconds is None else ", as the host asks"
    return dg.Failure(
        description=f"{result.shard}: {result.stopped}. {result.left:,} of {result.dids:,} DIDs are left; run the "
        f"partition again after {retry_at}{whose}",
        metadata=numbers(shard_numbers(result)) | {"retry_after": dg.MetadataValue.text(retry_at)},
        allow_retries=False,
    )


@contextmanager
def checks_of_a_failure(
    context: dg.OpExecutionContext, backfill: BackfillResource, state: BackfillState
) -> Iterator[None]:
    """Record the shard's checks when the block fails; not when the shard is somebody else's now, who records them."""
    try:
        yield
    except (LeaseHeldError, FencedError, UnknownShardError):
        raise
    except BackfillError:
        _record_checks(context, backfill, state)
        raise


def _record_checks(context: dg.OpExecutionContext, backfill: BackfillResource, state: BackfillState) -> None:
    """The checks of a shard whose run has to fail. What is wrong with them must not hide why it fails."""
    try:
        record_verdicts(context, state.config.name, judge_shard(backfill, state, context.partition_key))
    except Exception as error:  # noqa: BLE001 - a defect too: it is said, and the failure goes on
        context.log.warning(f"{context.partition_key}: its checks could not be made: {error!r}")


@contextmanager
def _opened(context: dg.OpExecutionContext, backfill: BackfillResource) -> Iterator[BackfillState]:
    """The state; without one, an error that fits a partition which was planned once."""
    config = backfill.config()
    if context.has_partition_key and not has_state(config):
        raise StateError(
            f"{context.partition_key}: there is no state in {config.state_path} any more, though Dagster knows this "
            f"partition: bring it back, or launch {names.plan_job(config.name)} to begin anew"
        )
    with backfill.open_state() as state:
        yield state


def _run_shard(context: dg.OpExecutionContext, backfill: BackfillResource, state: BackfillState) -> ShardResult:
    shard = _shard(context, backfill, state)
    result = asyncio.run(
        run_shard(
            state,
            backfill.plan(state),
            load_selection(state.config),
            shard,
            run_id=context.run_id,
            on_progress=ProgressLog(context.log.info, monotonic=state.effects.monotonic).shard,
        )
    )
    if result.left and not result.host_down:
        why = f" ({result.stopped})" if result.stopped else ""
        context.log.warning(f"{result.shard}: {result.left:,} DIDs are left to retry{why}")
    return result


def _shard(context: dg.OpExecutionContext, backfill: BackfillResource, state: BackfillState) -> Shard:
    if not context.has_partition_key:
        job = names.backfill_job(state.config.name)
        raise UnknownShardError(f"{job} runs one shard: launch it with a partition")
    return find_shard(backfill.plan(state), context.partition_key)


def _observe(context: dg.OpExecutionContext, name: str, metadata: Mapping[str, Metadata]) -> None:
    """What there is of a shard that has to fail, so that its numbers are in the catalog nevertheless."""
    for asset, values in metadata.items():
        context.log_event(
            dg.AssetObservation(asset_key=[name, asset], partition=context.partition_key, metadata=values)
        )
