"""Which shards to launch, for schedules and sensors: with work, in nobody's hand, on a host that isn't resting.

Reads state and Dagster's instance; the launching itself is left to whoever asks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from backfill_dagster.model import UNROUTABLE_SHARD, Shard
from backfill_dagster.orchestration import names
from backfill_dagster.plan import Plan
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings
from backfill_dagster.state import BackfillState

LAUNCHES_MAX = 500
"""Runs that one tick asks for: creating them takes a daemon some seconds, and the queue drains slower than that."""

_WAITING = frozenset({DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED})

ENDED_LOOKED_AT_MAX = 1000
"""Newest runs that are looked through for hosts that want to be let alone."""


@dataclass(frozen=True)
class Launch:
    """What a tick asks for.

    Attributes:
        keys: partitions to launch, at most `LAUNCHES_MAX`; hosts by turns, since a host has one run at a time.
        more: partitions with work beyond these: a later tick's.
        in_hand: partitions with work that are queued, running, or in a partition backfill.
        at_work: of these, the ones whose run has started: it goes by the plan as it was then.
        resting: partitions with work whose host has asked not to be asked again yet.
    """

    keys: list[str]
    more: int = 0
    in_hand: int = 0
    at_work: Sequence[str] = ()
    resting: int = 0

    @property
    def text(self) -> str:
        """One sentence for a tick that launches nothing."""
        waiting = f"{self.in_hand:,} in hand already, {self.resting:,} with a host that wants to be let alone"
        return f"no shard to launch: of those with work {waiting}" if self.in_hand or self.resting else "nothing to do"


def shards_with_work(state: BackfillState, plan: Plan) -> list[str]:
    """Partition keys of the shards that a run would do something for.

    Not those whose only trouble is a lost part: a run can't mend that, and says so each time.
    """
    scope = load_selection(state.config).scope
    return [
        one.shard
        for one in all_standings(state, plan, scope)
        if one.shard != UNROUTABLE_SHARD and (one.pending or (one.has_work and not one.lost_parts))
    ]


def to_launch(
    instance: dg.DagsterInstance, name: str, with_work: Iterable[str], now_text: str, limit: int = LAUNCHES_MAX
) -> Launch:
    """Of the shards with work, those that can be launched now.

    Args:
        instance: Dagster's.
        name: the backfill.
        with_work: partition keys.
        now_text: ISO 8601 UTC.
        limit: at most so many.
    """
    wanted = sorted(map(Shard.parse, with_work), key=lambda shard: (shard.number, shard.host))
    at_work, waiting = keys_in_hand(instance, name)
    resting = resting_hosts(instance, name, now_text)
    free = [shard for shard in wanted if shard.key not in at_work and shard.key not in waiting]
    ready = [shard.key for shard in free if shard.host not in resting]
    return Launch(
        keys=ready[:limit],
        more=len(ready[limit:]),
        in_hand=len(wanted) - len(free),
        at_work=[shard.key for shard in wanted if shard.key in at_work],
        resting=len(free) - len(ready),
    )


def keys_in_hand(instance: dg.DagsterInstance, name: str) -> tuple[set[str], set[str]]:
    """Partitions that a run is at work on, and those that wait for theirs: queued, or still to come in a backfill."""
    runs = instance.get_runs(RunsFilter(tags={names.NAME_TAG: name}, statuses=NOT_FINISHED_STATUSES))
    at_work, waiting = set[str](), set[str]()
    for run in runs:
        if names.PARTITION_TAG in run.tags:
            (waiting if run.status in _WAITING else at_work).add(run.tags[names.PARTITION_TAG])
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])):
        waiting.update(_still_to_launch(backfill, name))
    return at_work, waiting


def resting_hosts(instance: dg.DagsterInstance, name: str, now_text: str) -> set[str]:
    """Hosts that a run of this backfill has given up for now, until a time that hasn't come yet."""
    ended = [DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS]
    runs = instance.get_runs(RunsFilter(tags={names.NAME_TAG: name}, statuses=ended), limit=ENDED_LOOKED_AT_MAX)
    return {
        run.tags[names.HOST_TAG]
        for run in runs
        if names.HOST_TAG in run.tags and run.tags.get(names.RETRY_AFTER_TAG, "") > now_text
    }


def _still_to_launch(backfill: PartitionBackfill, name: str) -> Collection[str]:
    if backfill.partition_set_origin is not None:
        if backfill.partition_set_origin.partition_set_name != names.partition_set(name):
            return ()
        keys = list(backfill.partition_names or ())
        last = backfill.last_submitted_partition_name
        return keys[keys.index(last) + 1 :] if last in keys else keys
    data = backfill.asset_backfill_data
    outcomes = dg.AssetKey([name, names.REPO_OUTCOMES])
    if data is None or outcomes not in data.target_subset.asset_keys:
        return ()
    asked = set(data.target_subset.get_partitions_subset(outcomes).get_partition_keys())
    if outcomes in data.requested_subset.asset_keys:
        asked -= set(data.requested_subset.get_partitions_subset(outcomes).get_partition_keys())
    return asked
