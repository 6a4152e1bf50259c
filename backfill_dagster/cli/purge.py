"""`backfill purge`: removes accounts or single records everywhere, and keeps them out for ever."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, json_option, looked_at, opened
from backfill_dagster.cli.plan import EXIT_LEFT
from backfill_dagster.cli.stopping import run_stoppable
from backfill_dagster.cli.summary import counted
from backfill_dagster.errors import UsageError
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.purges import Purge, PurgeLog
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.purge import carry_out, check_purge
from backfill_dagster.worker.upkeep import Upkeep


@click.command()
@config_argument
@click.option("--did", "dids", multiple=True, metavar="DID", help="All of this account (can be repeated).")
@click.option("--uri", "uris", multiple=True, metavar="URI", help="This record: at://DID/COLLECTION/RKEY (repeatable).")
@click.option("--reason", default="", help="Why: goes into the audit.")
@click.option("--list", "only_list", is_flag=True, help="Only show the audit.")
@json_option
def purge(
    config_path: Path, dids: tuple[str, ...], uris: tuple[str, ...], reason: str, only_list: bool, as_json: bool
) -> int:
    """Remove accounts or records everywhere, and keep them out.

    There is no way back. The order goes into an audit first; a shard that somebody works on carries it out with its
    next run (exit 3 until then). Backups, exports and copies are not reached.
    """
    if only_list:
        if dids or uris:
            raise UsageError("--list only shows the audit: leave out --did and --uri to see it, or --list to purge")
        _list(config_path, as_json)
        return 0
    check_purge(dids, uris)
    with opened(config_path, create=False) as state:
        order = _order(state, dids, uris, reason)
        done = run_stoppable(_carry_out, state)
    _say(order, done, as_json)
    return EXIT_LEFT if done.held else 0


def _order(state: BackfillState, dids: Sequence[str], uris: Sequence[str], reason: str) -> Purge:
    by = f"{_user()} on {socket.gethostname()}"
    return PurgeLog(state.store).append(
        sorted(set(dids)), sorted(set(uris)), at=state.effects.now_text(), by=by, reason=reason
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a number may be all that there is of a user
        return f"uid {os.getuid()}"


async def _carry_out(state: BackfillState) -> Upkeep[None]:
    plan = PlanStore(state.store).read()
    return await carry_out(state, plan, load_selection(state.config).scope, run_id=state.effects.new_id())


def _say(order: Purge, done: Upkeep[None], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"order": order.number, "shards": list(done.done), "held": done.held}, indent=2))
        return
    what = " and ".join(
        counted(len(some), noun) for some, noun in ((order.dids, "account"), (order.uris, "record")) if some
    )
    click.echo(f"order {order.number}: {what} purged, carried out in {counted(len(done.done), 'shard')}")
    for key, why in done.held.items():
        click.echo(f"left for the next run of {key}: {why}")


def _list(config_path: Path, as_json: bool) -> None:
    with looked_at(config_path) as state:
        orders = PurgeLog(state.store).read()
    if as_json:
        click.echo(json.dumps({"orders": [_json(one) for one in orders]}, indent=2))
        return
    for one in orders:
        click.echo(f"{one.number}  {one.at}  {one.by}  {one.reason or '(no reason given)'}")
        for name in (*one.dids, *one.uris):
            click.echo(f"    {name}")
    if not orders:
        click.echo("nothing was ever purged")


def _json(order: Purge) -> dict[str, object]:
    return {
        "number": order.number,
        "at": order.at,
        "by": order.by,
        "reason": order.reason,
        "dids": list(order.dids),
        "uris": list(order.uris),
    }
