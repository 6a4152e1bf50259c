"""Many shards on one machine, without Dagster: hosts side by side, one host's shards one after the other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from backfill_dagster.errors import LeaseHeldError, UnknownShardError
from backfill_dagster.model import UNROUTABLE_SHARD, Shard
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.records.selection import Selection
from backfill_dagster.standing import all_standings
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.result import RunNumbers, ShardResult
from backfill_dagster.worker.shard import run_shard

HOSTS_AT_ONCE_MAX = 4
"""Shard runs side by side in one process: each has its own memory budget and writer thread."""

KNOWN_KEYS_SHOWN = 10

OnShard = Callable[[str, RunNumbers], None]


@dataclass
class BackfillRun:
    """What `run_backfill` did: results by shard, and the shards left out because somebody else works on them."""

    results: dict[str, ShardResult] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)


def find_shard(plan: Plan, key: str) -> Shard:
    """The shard of a partition key.

    Raises:
        UnknownShardError: the plan doesn't know it; names the ones it knows.
    """
    known = list(plan.shards())
    if key in known:
        return Shard.parse(key)
    if not known:
        raise UnknownShardError(f"unknown shard {key!r}: the plan has no shards yet, run the plan first")
    more = f" and {len(known) - KNOWN_KEYS_SHOWN} more" if len(known) > KNOWN_KEYS_SHOWN else ""
    raise UnknownShardError(f"unknown shard {key!r}; the plan has {', '.join(known[:KNOWN_KEYS_SHOWN])}{more}")


def shards_with_work(state: BackfillState, plan: Plan, scope: str, keys: Iterable[str] = ()) -> list[Shard]:
    """The shards that a run would do something for; of the given keys, or of the whole plan."""
    wanted = {find_shard(plan, key).key for key in keys}
    return [
        Shard.parse(one.shard)
        for one in all_standings(state, plan, scope)
        if one.has_work and one.shard != UNROUTABLE_SHARD and (not wanted or one.shard in wanted)
    ]


async def run_backfill(
    state: BackfillState,
    plan: Plan,
    selection: Selection,
    shards: Iterable[Shard],
    *,
    run_id: str,
    on_progress: OnShard = lambda shard, numbers: None,
) -> BackfillRun:
    """Run shards; a host held by somebody else is left out and named, a dead host ends its own shards only.

    Raises:
        StateError, FencedError: as `run_shard`; what other shards committed stands.
    """
    done = BackfillRun()
    side_by_side = asyncio.Semaphore(min(state.config.processing.max_concurrent_pds, HOSTS_AT_ONCE_MAX))

    async def run_host(host_shards: list[Shard], *, only_tidy: bool = False) -> None:
        async with side_by_side:
            for shard in host_shards:
                try:
                    result = await run_shard(
                        state,
                        plan,
                        selection,
                        shard,
                        run_id=run_id,
                        on_progress=lambda numbers, key=shard.key: on_progress(key, numbers),  # type: ignore[misc]
                        only_tidy=only_tidy,
                    )
                except LeaseHeldError as held:
                    done.held[shard.key] = str(held)
                    return
                earlier = done.results.get(shard.key, result)
                standing = {"dids": result.dids, "outcomes": result.outcomes, "rows": result.rows}
                done.results[shard.key] = replace(earlier, **standing)  # type: ignore[arg-type]
                if result.host_down:
                    return

    await _side_by_side(run_host, shards)
    # A shard that has the repo of an account now that was another's makes that one's rows the past.
    newest = PlanStore(state.store).read()
    leftovers = [one for one in all_standings(state, newest, selection.scope) if one.left_behind]
    await _side_by_side(partial(run_host, only_tidy=True), [Shard.parse(one.shard) for one in leftovers])
    return done


async def _side_by_side(run_host: Callable[[list[Shard]], Coroutine[Any, Any, None]], shards: Iterable[Shard]) -> None:
    by_host: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        by_host[shard.host].append(shard)
    try:
        async with asyncio.TaskGroup() as group:
            for host_shards in by_host.values():
                group.create_task(run_host(host_shards))
    except BaseExceptionGroup as failures:
        # The first failure has cancelled the other hosts; it is the one a person has to read.
        raise failures.exceptions[0] from failures
