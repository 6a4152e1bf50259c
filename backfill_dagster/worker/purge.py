"""Purging: the order is committed first, then every shard that knows the accounts carries it out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from backfill_dagster.atproto.did import is_did
from backfill_dagster.errors import StateError, UsageError
from backfill_dagster.ledger import ShardSummary
from backfill_dagster.model import PlannedDid
from backfill_dagster.plan import Plan
from backfill_dagster.records.purges import Purge, PurgeLog, Purges
from backfill_dagster.standing import logged_shards
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.rewriting import carry_out_purges
from backfill_dagster.worker.upkeep import Upkeep, on_each_shard
from backfill_dagster.worker.writer import ShardWriter

_RECORD_URI = re.compile(r"at://([^/]+)/[a-zA-Z0-9_~.:-]{1,1024}/[a-zA-Z0-9_~.:-]{1,1024}")
"""Collection and key may be as odd as the quarantine has them: whatever a repo can hold."""


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
        match = _RECORD_URI.fullmatch(uri)
        if match is None or not is_did(match[1]):
            raise UsageError(f"{uri!r} is not the AT URI of a record: at://<did>/<collection>/<rkey>")


async def carry_out(
    state: BackfillState, plan: Plan, scope: str, *, run_id: str, leave_out: Collection[str] = ()
) -> Upkeep[None]:
    """Carry out every order that is open anywhere; returns the shards it was open in.

    Args:
        state: the opened state.
        plan: the plan.
        scope: of the records wanted.
        run_id: names the work in log and leases.
        leave_out: shards not to look into.

    Raises:
        StateError: a shard can't be read or written; the others are done, the orders stand, and the next run of a shard
            carries them out.
    """
    purges = Purges.of(PurgeLog(state.store).read())
    open_keys, unreadable = _where_open(state, plan, purges, leave_out)

    def work(writer: ShardWriter, planned: Sequence[PlannedDid]) -> None:
        carry_out_purges(writer, purges, [one.did for one in planned])

    upkeep = await on_each_shard(state, plan, scope, open_keys, work, run_id=run_id)
    if unreadable:
        raise unreadable[0]
    return upkeep


def _where_open(
    state: BackfillState, plan: Plan, purges: Purges, leave_out: Collection[str]
) -> tuple[list[str], list[StateError]]:
    """The shards in which an order is open, or was begun and not finished, by key; and why others couldn't be read."""
    found: list[str] = []
    summaries = state.ledger.summaries()
    unreadable: list[StateError] = []

    def look(key: str, planned: Sequence[PlannedDid]) -> None:
        if key in leave_out:
            return
        try:
            fold = state.log(key).read()
            is_finished = summaries.get(key, ShardSummary()).seq == fold.seq or not fold.purged
            if not is_finished or purges.open_in(fold, [one.did for one in planned]):
                found.append(key)
        except StateError as error:
            unreadable.append(error)

    left = {*plan.shards(), *logged_shards(state)}
    for key, planned in plan.by_shard():
        left.discard(key)
        look(key, planned)
    for key in left:
        look(key, [])
    return sorted(found), unreadable


def restore_orders(state: BackfillState, keys: Iterable[str]) -> dict[int, str]:
    """Write orders again that are lost or can't be read, from what is legible and what the logs say was purged.

    Rather too much than too little: a name with a flipped bit is nobody's.

    Returns:
        Number -> what was wrong. What is neither legible nor known to a shard has to be ordered again by a person.

    Raises:
        StateError: the store refuses.
    """
    log = PurgeLog(state.store)
    problems = log.damaged()
    lost = _purged_somewhere(state, keys).union(*map(log.legible, problems))
    if not problems:
        known = Purges.of(log.read())
        lost -= known.dids | known.uris
    uris = sorted(one for one in lost if one.startswith("at://"))
    dids = sorted(lost.difference(uris))
    said = {
        "at": state.effects.now_text(),
        "by": "backfill repair",
        "reason": "the order was lost: by the shards' logs",
    }
    if problems:
        for number in problems:
            log.put_again(Purge(number=number, dids=dids, uris=uris, **said))
    elif lost:
        order = log.append(dids, uris, **said)
        problems[order.number] = "the logs know of a purge that no order says"
    return problems


def _purged_somewhere(state: BackfillState, keys: Iterable[str]) -> set[str]:
    purged: set[str] = set()
    for key in keys:
        with suppress(StateError):  # held by somebody, and damaged: a later repair sees to it
            purged |= state.log(key).read().purged
    return purged
