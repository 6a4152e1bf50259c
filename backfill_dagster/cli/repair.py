"""`backfill repair`: mends what follows from the log, and reopens the accounts of what is lost."""

from __future__ import annotations

import json
from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, json_option, open_config, opened
from backfill_dagster.cli.partitions import register_partitions
from backfill_dagster.cli.plan import EXIT_LEFT
from backfill_dagster.cli.stopping import run_stoppable
from backfill_dagster.cli.summary import counted
from backfill_dagster.errors import UsageError
from backfill_dagster.plan import PlanStore
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState, restore_marker
from backfill_dagster.worker.repair import Mended, repair_backfill
from backfill_dagster.worker.upkeep import Upkeep


@click.command()
@config_argument
@json_option
def repair(config_path: Path, as_json: bool) -> int:
    """Mend a damaged state: what `verify` names.

    The ledger and Dagster's partitions are written again from log and plan. Log entries that can't be read are voided;
    lost parts are taken out of the log (and deleted: bring a backup back first, if there is one). The accounts that
    have lost something are pending, and the next run fetches them anew: exit 3 then.
    """
    restored = restore_marker(open_config(config_path))
    with opened(config_path, create=False) as state:
        done = run_stoppable(_repair, state)
        register_partitions(state.config.name, list(PlanStore(state.store).read().shards()))
    reopened = sum(len(one.reopened) for one in done.done.values())
    if as_json:
        click.echo(json.dumps(_json(done, restored, reopened), indent=2))
    else:
        _say(config_path, done, restored, reopened)
    return EXIT_LEFT if done.held or reopened else 0


async def _repair(state: BackfillState) -> Upkeep[Mended]:
    plan = PlanStore(state.store).read()
    if plan.generation == 0:
        raise UsageError(f"there is no plan in {state.store.uri} to repair by: bring plan/ back, or plan again first")
    return await repair_backfill(state, plan, load_selection(state.config).scope, run_id=state.effects.new_id())


def _say(config_path: Path, done: Upkeep[Mended], restored: bool, reopened: int) -> None:
    if restored:
        click.echo("state.json: written again, from what the ledger knows")
    for key, one in done.done.items():
        for seq, problem in sorted(one.voids.items()):
            click.echo(f"{key}: entry {seq} {problem}: void")
        for path, problem in one.lost_parts.items():
            click.echo(f"{path}: {problem}: taken out")
        if one.reopened:
            click.echo(f"{key}: {counted(len(one.reopened), 'account')} reopened")
        if one.snapshots:
            click.echo(f"{key}: {counted(one.snapshots, 'wrong snapshot')} removed")
        if one.items:
            click.echo(f"{key}: {counted(one.items, 'ledger item')} written again")
    for key, why in done.held.items():
        click.echo(f"left out {key}: {why}")
    if not restored and not done.held and all(one.is_nothing for one in done.done.values()):
        click.echo("nothing to repair")
    if reopened:
        click.echo(f"{counted(reopened, 'account')} left to fetch anew: `backfill run {config_path}`")


def _json(done: Upkeep[Mended], restored: bool, reopened: int) -> dict[str, object]:
    return {
        "state_json_restored": restored,
        "reopened": reopened,
        "shards": {
            key: {
                "voids": {str(seq): problem for seq, problem in one.voids.items()},
                "lost_parts": one.lost_parts,
                "reopened": one.reopened,
                "items": one.items,
                "snapshots": one.snapshots,
            }
            for key, one in done.done.items()
            if not one.is_nothing
        },
        "held": done.held,
    }
