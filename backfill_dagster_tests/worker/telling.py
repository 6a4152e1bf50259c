"""What log and ledger say of each DID, in short: the cells of tables with exact results."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, RepoOutcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.entry import LogEntry
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import ShardStanding, all_standings, logged_shards
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, write_config
from backfill_dagster_tests.worker.refreshes import run
from backfill_dagster_tests.worker.tiny import Rows, rows_in, state_of

Name = TypeVar("Name", str, int)


class Told(NamedTuple):
    """One DID's newest word in the log of its current shard."""

    outcome: str
    rows: int
    seq: int
    attempts: int
    scope: str
    refresh: int


class Heard(NamedTuple):
    """One attempt at a DID: the entry that says what came of it, and whether the whole repo was fetched for it."""

    seq: int
    outcome: str
    whole: bool


@contextmanager
def state_at(
    folder: Path, network: LocalNetwork, time: InstantTime, dids: list[str] | None = None, **changes: Any
) -> Iterator[BackfillState]:
    """As `tiny.state_of`, under a clock of one's own."""
    path = write_config(folder, network.plc_url, network.dids if dids is None else dids, **changes)
    with opened(path, time.effects()) as state:
        yield state


def scope_of(state: BackfillState) -> str:
    return load_selection(state.config).scope


def told(state: BackfillState, names: Mapping[str, str], scopes: Mapping[str, str]) -> dict[str, Told]:
    """Name -> what log and ledger, which agree, say of the DID.

    Args:
        state: the opened state.
        names: DID -> its name in the table.
        scopes: scope -> its name.
    """
    said = {}
    for shard, planned in PlanStore(state.store).read().by_shard():
        known = state.log(shard).read().dids
        for one in planned:
            if one.did in known:
                result, seq = known[one.did]
                item = state.ledger.item(shard, one.did)
                assert item is not None
                assert (item.result.outcome, item.result.records_total, item.seq) == (
                    result.outcome,
                    result.records_total,
                    seq,
                )
                said[names[one.did]] = _told(result, seq, scopes)
    return said


def _told(result: RepoOutcome, seq: int, scopes: Mapping[str, str]) -> Told:
    rows, scope = result.records_total, scopes[result.scope]
    return Told(result.outcome.value, rows, seq, result.attempts, scope, result.refresh)


def entries(state: BackfillState, shard: str) -> list[LogEntry]:
    """All entries of a shard's log."""
    log = state.log(shard)
    return [LogEntry.from_bytes(state.store.get(log.key(seq))) for seq in range(1, log.last_seq() + 1)]


def heard(state: BackfillState) -> dict[str, list[Heard]]:
    """DID -> every attempt at it, in whatever shard."""
    found: dict[str, list[Heard]] = defaultdict(list)
    for shard in logged_shards(state):
        for entry in entries(state, shard):
            for did, result in entry.dids.items():
                whole = result.outcome is Outcome.COMPLETE and result.records_seen_by_collection is not None
                found[did].append(Heard(entry.seq, result.outcome.value, whole))
    return found


def marks(state: BackfillState, names: Mapping[str, Name]) -> dict[Name, int]:
    """Name -> seq of every mark there is, in whatever shard."""
    found = [state.ledger.retry_marks(key) for key in logged_shards(state)]
    return {names[did]: seq for one in found for did, seq in one.items()}


def named(network: LocalNetwork) -> dict[str, str]:
    """DID -> a letter, in the source's order."""
    return dict(zip(network.dids, "abcdefgh", strict=False))


async def fresh(
    folder: Path, network: LocalNetwork, names: Mapping[str, str], **changes: Any
) -> tuple[Rows, dict[str, int]]:
    """What a backfill has that has never had another config: its rows, and name -> how many of them."""
    with state_of(folder, network, name=f"fresh_{uuid.uuid4().hex}", **changes) as state:
        await run(state)
        counts = {name: one.rows for name, one in told(state, names, {scope_of(state): ""}).items()}
        return rows_in(state), counts


def standing(state: BackfillState, shard: str = "") -> ShardStanding:
    """Of the reserved shard, or of the only other one."""
    standings = all_standings(state, PlanStore(state.store).read(), scope_of(state))
    (found,) = (one for one in standings if (one.shard == UNROUTABLE_SHARD) is (shard == UNROUTABLE_SHARD))
    return found
