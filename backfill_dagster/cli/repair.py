"""`backfill repair`: mends what follows from the log, and reopens the accounts of what is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
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
from backfill_dagster.worker.repair import Mended, Repaired, repair_backfill


@click.command()
@config_argument
@json_option
def repair(config_path: Path, as_json: bool) -> int:
    """Mend a damaged state: what `verify` names.

    The ledger, state.json and Dagster's partitions are written again. Log entries that can't be read are voided; lost
    parts are taken out of the log, and parts that no log knows are deleted (bring a backup back first, if there is
    one). The accounts that have lost something are pending, and the next run fetches them anew: exit 3 then.
    """
    restored = restore_marker(open_config(config_path))
    with opened(config_path, create=False) as state:
        done = run_stoppable(_repair, state)
        register_partitions(state.config.name, list(PlanStore(state.store).read().shards()))
    if as_json:
        click.echo(json.dumps(_json(done, restored), indent=2))
    else:
        _say(config_path, done, restored)
    return EXIT_LEFT if done.held or done.left or done.orders else 0


async def _repair(state: BackfillState) -> Repaired:
    plan = PlanStore(state.store).read()
    if plan.generation == 0:
        raise UsageError(f"there is no plan in {state.store.uri} to repair by: bring plan/ back, or plan again first")
    return await repair_backfill(state, plan, load_selection(state.config).scope, run_id=state.effects.new_id())


def _say(config_path: Path, done: Repaired, restored: bool) -> None:
    if restored:
        click.echo("state.json: written again")
    for key, one in done.shards.items():
        for line in _lines(one):
            click.echo(f"{key}: {line}")
    for number, problem in done.orders.items():
        click.echo(
            f"purge order {number} {problem}: written again from what is legible and what the shards have carried out; "
            f"see `backfill purge {config_path} --list`, and purge again what is missing there"
        )
    for key, why in done.held.items():
        click.echo(f"left out {key}: {why}")
    if not restored and done == Repaired():
        click.echo("nothing to repair")
    if done.left:
        click.echo(f"{counted(done.left, 'account')} left to fetch anew: `backfill run {config_path}`")


def _lines(mended: Mended) -> Iterator[str]:
    for seq, problem in sorted(mended.voids.items()):
        yield f"entry {seq} {problem}: void"
    for path, problem in mended.lost_parts.items():
        yield f"{path}: {problem}: taken out"
    if mended.reopened:
        yield f"{counted(len(mended.reopened), 'account')} reopened"
    if mended.gone:
        yield f"{counted(len(mended.gone), 'account')} lost something here that no run fetches (delisted or moved)"
    if mended.files:
        yield f"{counted(mended.files, 'part')} published late, or nobody's and deleted"
    if mended.snapshots:
        yield f"{counted(mended.snapshots, 'wrong snapshot')} removed"
    if mended.items:
        yield f"{counted(mended.items, 'ledger item')} written again"


def _json(done: Repaired, restored: bool) -> dict[str, object]:
    return {
        "state_json_restored": restored,
        "reopened": done.left,
        "shards": {key: asdict(one) for key, one in done.shards.items()},
        "orders": done.orders,
        "held": done.held,
    }
