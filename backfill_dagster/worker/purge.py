"""Purging: the order is committed first, then every shard that knows the accounts carries it out."""

from __future__ import annotations

from collections.abc import Sequence

from backfill_dagster.atproto.at_uri import parse_at_uri
from backfill_dagster.atproto.did import is_did
from backfill_dagster.errors import UsageError
from backfill_dagster.model import PlannedDid
from backfill_dagster.plan import Plan
from backfill_dagster.records.purges import PurgeLog, Purges
from backfill_dagster.standing import has_open_purges, logged_shards
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.rewriting import carry_out_purges
from backfill_dagster.worker.upkeep import Upkeep, on_each_shard
from backfill_dagster.worker.writer import ShardWriter


def check_purge(dids: Sequence[str], uris: Sequence[str]) -> None:
    """Refuse what can't be purged.

    Raises:
        UsageError: nothing is named, or something is no DID, or no AT URI of one record of a DID.
    """
    if not dids and not uris:
        raise UsageError("nothing to purge: name accounts with --did or records with --uri")
    for did in dids:
        if not is_did(did):
            raise UsageError(f"{did!r} is not a DID (did:plc:… or did:web:…)")
    for uri in uris:
        try:
            parts = parse_at_uri(uri)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if parts.rkey is None or not is_did(parts.authority):
            raise UsageError(f"{uri!r} is not the AT URI of a record: at://<did>/<collection>/<rkey>")


async def carry_out(state: BackfillState, plan: Plan, scope: str, *, run_id: str) -> Upkeep[None]:
    """Carry out every order that is open anywhere; returns the shards it was open in.

    Args:
        state: the opened state.
        plan: the plan.
        scope: of the records wanted.
        run_id: names the work in log and leases.

    Raises:
        StateError: the state can't be read or written; the orders stand, and the next run of a shard carries them out.
    """
    purges = Purges.of(PurgeLog(state.store).read())
    planned = {key: [one.did for one in dids] for key, dids in plan.by_shard()}
    keys = sorted({*plan.shards(), *planned, *logged_shards(state)})
    open_keys = [key for key in keys if has_open_purges(state.log(key).read(), planned.get(key, []), purges)]

    def work(writer: ShardWriter, dids: Sequence[PlannedDid]) -> None:
        carry_out_purges(writer, purges, [one.did for one in dids])

    return await on_each_shard(state, plan, scope, open_keys, work, run_id=run_id)
