"""Compacting: many small parts of a shard become few, the same rows in the same order of parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backfill_dagster.model import PlannedDid
from backfill_dagster.plan import Plan
from backfill_dagster.progress import has_rewrites
from backfill_dagster.records.compact import TARGET_BYTES, small_groups
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import find_shard
from backfill_dagster.worker.rewriting import compact, take_out_superseded
from backfill_dagster.worker.upkeep import Upkeep, on_each_shard
from backfill_dagster.worker.writer import ShardWriter


async def compact_backfill(
    state: BackfillState,
    plan: Plan,
    scope: str,
    keys: Iterable[str] = (),
    *,
    run_id: str,
    target_bytes: int = TARGET_BYTES,
) -> Upkeep[int]:
    """Merge the small parts of the given shards, or of all that have some.

    Args:
        state: the opened state.
        plan: the plan.
        scope: of the records wanted.
        keys: partition keys; none: all of the plan.
        run_id: names the work in log and leases.
        target_bytes: size of the merged parts, about.

    Returns:
        Shard -> how many parts fewer it has.

    Raises:
        UnknownShardError: a key that the plan doesn't know.
        StateError: the state can't be read or written; what was merged stands.
    """
    chosen = list(dict.fromkeys(find_shard(plan, key).key for key in keys)) or list(plan.shards())
    with_work = [key for key in chosen if _has_work(state, key, target_bytes)]

    def work(writer: ShardWriter, planned: Sequence[PlannedDid]) -> int:
        before = len(writer.fold.parts)
        take_out_superseded(writer)
        compact(writer, target_bytes)
        return before - len(writer.fold.parts)

    return await on_each_shard(state, plan, scope, with_work, work, run_id=run_id)


def _has_work(state: BackfillState, key: str, target_bytes: int) -> bool:
    fold = state.log(key).read()
    return has_rewrites(fold) or any(True for _ in small_groups(state.store, fold, target_bytes))
