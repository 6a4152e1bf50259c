"""`backfill compact`: merges small parts."""

from __future__ import annotations

import json
from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, json_option, opened
from backfill_dagster.cli.plan import EXIT_LEFT
from backfill_dagster.cli.stopping import run_stoppable
from backfill_dagster.cli.summary import counted
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.compact import TARGET_BYTES
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.compaction import compact_backfill
from backfill_dagster.worker.upkeep import Upkeep


@click.command()
@config_argument
@click.option("--shard", "shards", multiple=True, metavar="KEY", help="Only this shard (can be repeated).")
@click.option(
    "--target-mib",
    type=click.IntRange(min=1, max=4096),
    default=TARGET_BYTES >> 20,
    show_default=True,
    help="Size of the merged parts, about; parts of half of it and more stay.",
)
@json_option
def compact(config_path: Path, shards: tuple[str, ...], target_mib: int, as_json: bool) -> int:
    """Merge the small parts of each shard into few.

    The same rows, quicker to read. Shards that somebody works on are left out and named (exit 3).
    """
    with opened(config_path, create=False) as state:
        done = run_stoppable(_compact, state, shards, target_mib << 20)
    if as_json:
        click.echo(json.dumps({"parts_fewer": done.done, "held": done.held}, indent=2))
    else:
        click.echo(f"{counted(sum(done.done.values()), 'part')} fewer in {counted(len(done.done), 'shard')}")
        for key, why in done.held.items():
            click.echo(f"left out {key}: {why}")
    return EXIT_LEFT if done.held else 0


async def _compact(state: BackfillState, shards: tuple[str, ...], target_bytes: int) -> Upkeep[int]:
    plan, scope = PlanStore(state.store).read(), load_selection(state.config).scope
    run_id = state.effects.new_id()
    return await compact_backfill(state, plan, scope, shards, run_id=run_id, target_bytes=target_bytes)
