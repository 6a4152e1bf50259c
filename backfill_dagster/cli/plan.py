"""`backfill plan`: DIDs to shards, with what fetching them will cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from backfill_dagster.cli.opening import config_argument, json_option, limit_option, opened
from backfill_dagster.cli.partitions import register_partitions
from backfill_dagster.cli.progress import bars
from backfill_dagster.cli.stopping import run_stoppable
from backfill_dagster.cli.summary import counted
from backfill_dagster.plan.make import PlanResult
from backfill_dagster.worker.planning import plan_backfill

EXIT_LEFT = 3


@click.command()
@config_argument
@click.option("--refresh", is_flag=True, help="Fetch anew what can have changed: raises the plan's refresh number.")
@limit_option
@json_option
def plan(config_path: Path, refresh: bool, limit: int | None, as_json: bool) -> int:
    """Give each DID a shard; say what fetching them will cost.

    Exits 3 when the directory was down for some DIDs: they wait, and the next plan looks them up.
    """
    with opened(config_path, limit=limit) as state, bars(quiet=as_json) as shown:
        result = run_stoppable(
            plan_backfill,
            state,
            run_id=state.effects.new_id(),
            refresh=refresh,
            limit=limit,
            on_resolved=shown.resolved,
        )
        if limit is None:
            register_partitions(state.config.name, shard_keys(result))
    click.echo(json.dumps(plan_json(result), indent=2) if as_json else plan_text(result))
    return EXIT_LEFT if result.unresolved else 0


def shard_keys(result: PlanResult) -> list[str]:
    """Partition keys of the plan, sorted."""
    return list(result.plan.shards())


def plan_json(result: PlanResult) -> dict[str, Any]:
    """The plan's numbers as one JSON object."""
    return {
        "source": result.source,
        "dids": result.plan.count,
        "shards": len(shard_keys(result)),
        "generation": result.plan.generation,
        "refresh": result.plan.refresh,
        "new": result.new,
        "rerouted": result.rerouted,
        "delisted": result.delisted,
        "unresolved": result.unresolved,
        "unroutable": {outcome.value: count for outcome, count in sorted(result.unroutable.items())},
        "estimate": result.estimate.to_json(),
    }


def plan_text(result: PlanResult, *, with_cost: bool = True) -> str:
    """The plan in a few lines; the cost is that of fetching all of it once."""
    dids = result.plan.count
    if not dids:
        gone = f" ({result.delisted:,} delisted)" if result.delisted else ""
        return f"{result.source}: no DIDs, so there is nothing to fetch{gone}"
    lines = [
        f"source: {result.source}",
        f"plan:   {counted(dids, 'DID')} in {counted(len(shard_keys(result)), 'shard')} "
        f"({result.new:,} new, {result.rerouted:,} rerouted, {result.delisted:,} delisted)",
    ]
    if not result.listed:
        lines.append("the source lists nobody now: the plan stayed as it was")
    if with_cost:
        lines.append(f"cost:   {result.estimate.text()}")
    if result.unroutable:
        said = ", ".join(f"{count:,} {outcome.value}" for outcome, count in sorted(result.unroutable.items()))
        lines.append(f"without a host: {said}")
    if result.unresolved:
        waiting = counted(result.unresolved, "DID")
        lines.append(f"{waiting} waiting, as their directory did not answer: plan again to look them up")
    return "\n".join(lines)
