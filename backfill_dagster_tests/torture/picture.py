"""What a state holds, without what may differ between two ways to the same end (times, runs, numbers of entries)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from backfill_dagster.ledger import LeaseRecord
from backfill_dagster.ledger.process_identity import ProcessIdentity, is_dead, own_identity
from backfill_dagster.model import RepoOutcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import verify_backfill
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.worker.tiny import Rows, rows_below, rows_in

_OF_THE_WAY = ("fetched_at", "finished_at", "run_id", "refresh", "attempts", "error_headers", "config_hash")
"""Fields of an outcome that say how it came about, not what it is."""


@dataclass(frozen=True)
class Picture:
    """All that has to be the same after any accident.

    Attributes:
        rows: (URI, CID, record type) by a plain glob.
        quarantined: (DID, key) of the records in quarantine, by a plain glob.
        plan: DID -> its row of the plan.
        log: shard -> DID -> what the log says of it.
        ledger: shard -> DID -> what the ledger says of it.
        summaries: shard -> outcomes and rows.
    """

    rows: Rows
    quarantined: set[tuple[Any, ...]]
    plan: dict[str, Any]
    log: dict[str, dict[str, Any]]
    ledger: dict[str, dict[str, Any]]
    summaries: dict[str, Any]

    def differences(self, other: Picture) -> dict[str, Any]:
        """What is another, by the attribute's name."""
        mine, theirs = vars(self), vars(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


def finished_picture(state: BackfillState) -> Picture:
    """The picture of a state in which all pieces agree, nothing is left to do, lies about or is held by anybody."""
    plan = PlanStore(state.store).read()
    rows = list(plan.rows())
    shards = sorted({one.shard for one in rows})
    standings = all_standings(state, plan, load_selection(state.config).scope)
    unfinished = {
        "verify says": verify_backfill(state),
        "staged": [one.key for one in state.store.staged()],
        "has work": [one.shard for one in standings if one.has_work],
        "held": held_in(state, shards),
    }
    assert not any(unfinished.values()), unfinished
    folds = {shard: state.log(shard).read() for shard in shards}
    return Picture(
        rows=rows_in(state),
        quarantined=quarantine_in(state),
        plan={one.did: one for one in rows},
        log={shard: {did: essence(one) for did, (one, _) in fold.dids.items()} for shard, fold in folds.items()},
        ledger={shard: {one.result.did: essence(one.result) for one in state.ledger.items(shard)} for shard in shards},
        summaries={shard: (one.outcomes, one.rows) for shard, one in state.ledger.summaries().items()},
    )


def held_in(state: BackfillState, shards: Iterable[str]) -> list[LeaseRecord]:
    """The leases of these shards and their hosts that a living process has not let go."""
    records = [state.ledger.leases.read(f"{state.config.name}/{shard}") for shard in shards]
    records += [table.read(shard.split("~")[0]) for table in state.host_leases for shard in shards]
    return [one for one in records if one is not None and not one.released and not is_dead(owner(one), own_identity())]


def owner(record: LeaseRecord) -> ProcessIdentity:
    return ProcessIdentity(record.pid, record.boot_id, record.pid_namespace, record.pid_started)


def quarantine_in(state: BackfillState) -> set[tuple[Any, ...]]:
    found = rows_below(state, "quarantine", "author, collection, rkey")
    assert len(set(found)) == len(found), "a record is in quarantine twice"
    return set(found)


def essence(result: RepoOutcome) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(result).items() if name not in _OF_THE_WAY}
