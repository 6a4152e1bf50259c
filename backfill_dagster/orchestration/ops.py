"""The ops of a shard run: `load_shard` checks what the partition key asks for, `fetch_repos` does it.

Everything they need comes from the partition key and the config, nothing is handed from one to the other: so a run
can be taken up from either, in any process.
"""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import dagster as dg

from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import UnknownShardError
from backfill_dagster.model import Shard
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.failures import clear_failures
from backfill_dagster.orchestration.metadata import (
    Metadata,
    numbers,
    outcomes_metadata,
    records_metadata,
    shard_numbers,
)
from backfill_dagster.orchestration.progress_log import ProgressLog
from backfill_dagster.orchestration.resources import BackfillResource
from backfill_dagster.orchestration.run_tags import shard_tags
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker import ShardResult, run_shard
from backfill_dagster.worker.backfill import find_shard


def load_shard_op(name: str) -> dg.OpDefinition:
    """The op that checks the partition key against the plan and puts the host's tag on the run.

    Runs that went round the queue (`dagster job execute`, `dagster asset materialize`) get their tags here.
    """

    @dg.op(
        name=f"{name}__load_shard",
        description="Looks the partition key up in the plan; an unknown one fails with the known ones named.",
        ins={names.SHARD_PLAN: dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        required_resource_keys={names.state_resource(name)},
    )
    def load_shard(context: dg.OpExecutionContext) -> None:
        with clear_failures(), _backfill(context, name).open_state() as state:
            shard = _shard(context, state)
            count = _backfill(context, name).plan(state).shards()[shard.key]
        context.instance.add_run_tags(context.run_id, shard_tags(name, shard.key))
        context.log.info(f"{shard.key}: {count:,} DIDs of PDS host {shard.host}")

    return load_shard


def fetch_repos_op(config: BackfillConfig) -> dg.OpDefinition:
    """The op that fetches a shard's pending repos and commits them; an output for each of the shard's assets."""
    name = config.name
    outputs = [*map(names.records_asset, config.record_types), names.REPO_OUTCOMES]

    @dg.op(
        name=f"{name}__fetch_repos",
        description="Fetches, checks and commits the repos of the shard's pending DIDs.",
        ins={"shard": dg.In(dg.Nothing)},
        out={output: dg.Out(dg.Nothing) for output in outputs},
        required_resource_keys={names.state_resource(name)},
    )
    def fetch_repos(context: dg.OpExecutionContext) -> Iterator[dg.Output[None]]:
        with clear_failures(), _backfill(context, name).open_state() as state:
            result = _run_shard(context, state)
        metadata = shard_metadata(config, result)
        if result.host_down:
            _observe(context, name, metadata)
            raise host_failure(result, _backfill(context, name).effects().clock())
        for output in outputs:
            yield dg.Output(None, output, metadata=metadata[output])

    return fetch_repos


def shard_metadata(config: BackfillConfig, result: ShardResult) -> dict[str, Metadata]:
    """Asset name -> metadata, for all assets of a shard."""
    metadata = {names.records_asset(entry): records_metadata(result, entry) for entry in config.record_types}
    return metadata | {names.REPO_OUTCOMES: outcomes_metadata(result)}


def host_failure(result: ShardResult, now_seconds: float) -> dg.Failure:
    """The failure of a shard whose host stopped answering: why, what is left, when to try again.

    Args:
        result: how the shard stands.
        now_seconds: wall clock, seconds since the epoch.
    """
    again = "run the partition again later"
    if result.retry_after_seconds is not None:
        moment = datetime.fromtimestamp(now_seconds + result.retry_after_seconds, UTC)
        again = f"the host asks to try again after {moment.isoformat(timespec='seconds')}"
    return dg.Failure(
        description=f"{result.shard}: {result.stopped}. {result.left:,} of {result.dids:,} DIDs are left; {again}",
        metadata=numbers(shard_numbers(result)),
        allow_retries=False,
    )


def _run_shard(context: dg.OpExecutionContext, state: BackfillState) -> ShardResult:
    shard = _shard(context, state)
    result = asyncio.run(
        run_shard(
            state,
            _backfill(context, state.config.name).plan(state),
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


def _shard(context: dg.OpExecutionContext, state: BackfillState) -> Shard:
    name = state.config.name
    if not context.has_partition_key:
        raise UnknownShardError(f"{names.backfill_job(name)} runs one shard: launch it with a partition")
    return find_shard(_backfill(context, name).plan(state), context.partition_key)


def _observe(context: dg.OpExecutionContext, name: str, metadata: Mapping[str, Metadata]) -> None:
    """What there is of a shard that has to fail, so that its numbers are in the catalog nevertheless."""
    for asset, values in metadata.items():
        context.log_event(
            dg.AssetObservation(asset_key=[name, asset], partition=context.partition_key, metadata=values)
        )


def _backfill(context: dg.OpExecutionContext, name: str) -> BackfillResource:
    resource = getattr(context.resources, names.state_resource(name))
    assert isinstance(resource, BackfillResource)
    return resource
