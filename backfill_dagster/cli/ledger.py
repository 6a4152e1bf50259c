"""`backfill ledger`: makes the table of a DynamoDB ledger, and asks any ledger what is in no report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, json_option, looked_at, open_config
from backfill_dagster.config import DynamodbStorage
from backfill_dagster.errors import UsageError
from backfill_dagster.ledger import LeaseRecord, dynamodb_table, item_attributes, outcome_counts
from backfill_dagster.model import LedgerItem
from backfill_dagster.state import BackfillState


@click.group()
def ledger() -> None:
    """Make the table of a ledger in DynamoDB; ask any ledger."""


@ledger.command()
@config_argument
def create(config_path: Path) -> None:
    """Create the DynamoDB table, or see that it fits.

    It is billed by request; a table of provisioned capacity, made by other means, is as good.
    """
    config = open_config(config_path)
    if not isinstance(config.storage, DynamodbStorage):
        raise UsageError(
            f"{config_path}: storage.type is {config.storage.type}, whose ledger the first plan makes; only one of "
            "type dynamodb has a table to create"
        )
    table = dynamodb_table(config.storage)
    click.echo(f"{table}: {'created' if table.create() else 'is there already and fits'}")


@ledger.command()
@config_argument
@json_option
def counts(config_path: Path, as_json: bool) -> None:
    """Count DIDs by outcome, as each shard last summed up.

    Reads one small item a shard, no log: for a look from afar. `backfill status` is exact.
    """
    with looked_at(config_path) as state:
        found = outcome_counts(state.ledger)
    if as_json:
        click.echo(json.dumps({"outcomes": dict(sorted(found.items()))}, indent=2))
        return
    for name, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0])):
        click.echo(f"{count:>12,}  {name}")
    if not found:
        click.echo("no shard has summed up yet")


@ledger.command()
@config_argument
@click.argument("did")
@json_option
def find(config_path: Path, did: str, as_json: bool) -> None:
    """Show a DID in every backfill that shares the ledger."""
    with looked_at(config_path) as state:
        found = state.ledger.find_in_all(did)
    if as_json:
        click.echo(json.dumps({"items": [item_attributes(item) for item in found]}, indent=2))
        return
    for item in found:
        click.echo(_item_line(item))
    if not found:
        click.echo(f"no backfill of this ledger has an item of {did}")


@ledger.command()
@config_argument
@json_option
def leases(config_path: Path, as_json: bool) -> None:
    """Show who holds shards of the backfill, and PDS hosts.

    A holder that died without letting go is among them until somebody takes its place.
    """
    with looked_at(config_path) as state:
        held = list(_held(state))
    if as_json:
        click.echo(json.dumps({"leases": [{"of": what, **asdict(one)} for what, one in held]}, indent=2))
        return
    for what, one in held:
        click.echo(f"{what}  {one.name}: {one.owner_text} (epoch {one.epoch}, beat {one.beat})")
    if not held:
        click.echo("nobody holds a lease")


def _held(state: BackfillState) -> Iterator[tuple[str, LeaseRecord]]:
    """What is leased, a shard or a host, with its record; a host once, though two tables have it."""
    yield from (("shard", one) for one in state.ledger.leases.holders())
    hosts = {(one.name, one.owner_text): one for table in state.host_leases for one in table.holders()}
    yield from (("host", one) for _, one in sorted(hosts.items()))


def _item_line(item: LedgerItem) -> str:
    result = item.result
    error = f", {result.error_code}" if result.error_code else ""
    at = result.finished_at or "never"
    rows = f"{result.records_total:,} rows"
    return f"{item.backfill}  {item.shard}: {result.outcome.value}{error}, {rows}, rev {result.rev or '-'}, ended {at}"
