"""Which shards to launch, for schedules and sensors: with DIDs left, in nobody's hand, on a host that isn't resting.

Reads state and Dagster's instance; the launching itself is left to whoever asks. A tick of Dagster's has a minute, so
no more logs are read than have to be: a shard whose summary says that all is answered isn't looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from backfill_dagster.model import PlannedDid, Shard, Wanted
from backfill_dagster.orchestration import names
from backfill_dagster.plan import Plan
from backfill_dagster.progress import pending_dids
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import left_behind
from backfill_dagster.state import BackfillState

LAUNCHES_MAX = 500
"""Runs that one tick asks for: creating them takes a daemon some seconds, and the queue drains slower than that."""

LOOK_SECONDS = 25.0
"""How long one tick looks into shards; Dagster gives up on a tick after 60 s."""

LOOKED_AT_ONCE = 50
"""Shards whose DIDs are read from the plan together."""

ENDED_LOOKED_AT_MAX = 1000
"""Newest runs that are looked through for hosts that want to be let alone."""

_WAITING = frozenset({DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED})


@dataclass(frozen=True)
class Launch:
    """What a tick asks for.

    Attributes:
        keys: partitions to launch, at most the limit; hosts by turns, since a host has one run at a time.
        more: partitions that have not had their turn: a later tick's.
        last: the last partition that has had its turn; empty when none has.
        in_hand: partitions that may have work and are queued, running, or in a partition backfill.
        at_work: of these, the ones whose run has started: it goes by the plan as it was then.
        resting: partitions that may have work and whose host has asked not to be asked again yet.
    """

    keys: list[str]
    more: int = 0
    last: str = ""
    in_hand: int = 0
    at_work: Sequence[str] = ()
    resting: Sequence[str] = ()

    @property
    def text(self) -> str:
        """One sentence for a tick that launches nothing."""
        waiting = f"{self.in_hand:,} in hand already, {len(self.resting):,} with a host that wants to be let alone"
        return f"no shard to launch: {waiting}" if self.in_hand or self.resting else "nothing to do"


def turn(key: str) -> tuple[int, str]:
    """A partition's place in launching order: the first shard of each host, then the second of each."""
    return Shard.parse(key).turn


def find_launch(
    instance: dg.DagsterInstance,
    state: BackfillState,
    plan: Plan,
    *,
    wants: Callable[[str], bool] = lambda key: True,
    order: Callable[[str], Any] = turn,
    limit: int = LAUNCHES_MAX,
    seconds: float = LOOK_SECONDS,
) -> Launch:
    """Look for shards that can be launched now.

    Args:
        instance: Dagster's.
        state: the opened state.
        plan: as it is now.
        wants: whether a partition key is asked about at all.
        order: who comes first, as a sort key of a partition key.
        limit: of partitions to launch.
        seconds: of looking; after that the others wait for their turn.
    """
    name, wanted = state.config.name, Wanted(load_selection(state.config).scope, plan.refresh)
    unsettled = sorted(filter(wants, _unsettled(state, plan, wanted)), key=order)
    at_work, waiting = keys_in_hand(instance, name)
    hosts = resting_hosts(instance, name, state.effects.now_text())
    in_hand = at_work | waiting
    in_nobodys = [key for key in unsettled if key not in in_hand]
    resting = tuple(key for key in in_nobodys if Shard.parse(key).host in hosts)
    free = [key for key in in_nobodys if Shard.parse(key).host not in hosts]
    ready: list[str] = []
    looked = 0
    until = state.effects.monotonic() + seconds
    for chunk in _chunks(free, LOOKED_AT_ONCE):
        if len(ready) >= limit or state.effects.monotonic() >= until:
            break
        have_work = set(_with_work(state, plan, wanted, chunk))
        for key in chunk:
            if len(ready) >= limit:
                break
            looked += 1
            if key in have_work:
                ready.append(key)
    return Launch(
        keys=ready,
        more=len(free) - looked,
        last=free[looked - 1] if looked else "",
        in_hand=sum(key in in_hand for key in unsettled),
        at_work=tuple(key for key in unsettled if key in at_work),
        resting=resting,
    )


def _unsettled(state: BackfillState, plan: Plan, wanted: Wanted) -> list[str]:
    """Shards that can have work: marked ones, and those whose DIDs have not all had their answer by their last run."""
    summaries, marked, touched = state.ledger.summaries(), state.ledger.marked_shards(), plan.touched()
    found = []
    for key in plan.shards():
        settled = summaries[key].settled if key in summaries else None
        is_settled = settled is not None and settled.wanted == wanted and settled.generation >= touched.get(key, 0)
        if key in marked or not is_settled:
            found.append(key)
    return found


def _with_work(state: BackfillState, plan: Plan, wanted: Wanted, keys: Sequence[str]) -> Iterator[str]:
    """Of these shards, those with DIDs to fetch, or with rows of accounts that have another shard by now."""
    planned: dict[str, list[PlannedDid]] = dict(plan.by_shard(keys))
    for key in keys:
        dids, fold = planned.get(key, []), state.log(key).read()
        marks = state.ledger.retry_marks(key)
        if pending_dids(dids, fold, marks, wanted) or left_behind(state, plan, dids, fold, key):
            yield key


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
    """Hosts that the newest run has given up for now, until a time that hasn't come yet."""
    ended = [DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS]
    runs = instance.get_runs(RunsFilter(tags={names.NAME_TAG: name}, statuses=ended), limit=ENDED_LOOKED_AT_MAX)
    newest: dict[str, str] = {}
    for run in runs:
        if names.HOST_TAG in run.tags:
            newest.setdefault(run.tags[names.HOST_TAG], run.tags.get(names.RETRY_AFTER_TAG, ""))
    now = now_text[: len("2026-11-24T12:00:00")]  # both are UTC; what is left has the same form
    return {host for host, until in newest.items() if until[: len(now)] > now}


def longest_waiting_first(instance: dg.DagsterInstance, name: str) -> Callable[[str], tuple[float, tuple[int, str]]]:
    """An order for whoever asks again and again: who has never run, then by how long ago the last run was.

    Else the first few hundred shards would come round each time, and those behind them never.
    """
    tags = {names.PARTITION_SET_TAG: names.partition_set(name)}
    data = instance.run_storage.get_run_partition_data(RunsFilter(tags=tags))
    last = {one.partition: one.start_time or one.end_time or 0.0 for one in data}
    return lambda key: (last.get(key, 0.0), turn(key))


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


def _chunks(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(keys)
    while chunk := list(islice(rest, size)):
        yield chunk
