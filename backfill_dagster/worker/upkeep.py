"""Work on many shards of one backfill without fetching, one after the other; what somebody else holds is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from backfill_dagster.errors import FencedError, LeaseHeldError, StateError
from backfill_dagster.model import PlannedDid, Wanted
from backfill_dagster.plan import Plan
from backfill_dagster.records.log import ShardLog
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.recover import recover
from backfill_dagster.worker.session import ReadLog, Recover, close_shard, open_shard
from backfill_dagster.worker.writer import ShardWriter

T = TypeVar("T")

LOOKED_UP_MAX = 8
"""Each look-up reads the shards of the whole plan."""


@dataclass
class Upkeep(Generic[T]):
    """What became of the shards.

    Attributes:
        done: shard -> what its work returned.
        held: shard -> who works on it, or has taken it over meanwhile; what was done before that stands.
    """

    done: dict[str, T] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)


async def on_each_shard(
    state: BackfillState,
    plan: Plan,
    scope: str,
    keys: Iterable[str],
    work: Callable[[ShardWriter, Sequence[PlannedDid]], T],
    *,
    run_id: str,
    epoch_of: Callable[[str], int] | None = None,
    read: ReadLog = ShardLog.read,
    recover: Recover = recover,
) -> Upkeep[T]:
    """Take shard after shard in hand, work on it, leave it finished.

    Args:
        state: the opened state.
        plan: the plan.
        scope: of the records wanted.
        keys: partition keys, the reserved shard may be one.
        work: gets the shard's writer and what the plan gives the shard; called on the writer thread.
        run_id: names the work in log and leases.
        epoch_of: the epoch of a shard's log; default: as read from it.
        read: as of `open_shard`.
        recover: as of `open_shard`.

    Raises:
        StateError: the first that a shard had, as `open_shard`; the others were gone on with, and what was done stands.
    """
    upkeep: Upkeep[T] = Upkeep()
    wanted = Wanted(scope, plan.refresh)
    failures: list[StateError] = []
    for key, planned in _with_dids(plan, list(keys)):
        try:
            at_least = (state.whole_fold(key).epoch if epoch_of is None else epoch_of(key)) + 1
            async with open_shard(state, key, wanted, run_id, at_least_epoch=at_least, read=read, recover=recover) as (
                writer,
                on_writer,
            ):
                upkeep.done[key] = await on_writer(work, writer, planned)
                await on_writer(close_shard, writer, planned, plan.generation)
        except (LeaseHeldError, FencedError) as held:
            upkeep.held[key] = str(held)
        except StateError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return upkeep


def _with_dids(plan: Plan, keys: Sequence[str]) -> Iterator[tuple[str, list[PlannedDid]]]:
    """The shards with what the plan gives them: few are looked up, many are found in one pass over the plan."""
    if len(keys) <= LOOKED_UP_MAX:
        yield from ((key, plan.dids(key)) for key in keys)
        return
    left = dict.fromkeys(keys)
    for key, planned in plan.by_shard():
        if key in left:
            del left[key]
            yield key, planned
    yield from ((key, []) for key in left)
