"""What can happen to a state folder from outside: each damage as a function, with what it has to come to.

The state that they are done to is `made`: one host with four accounts, fetched in pairs, the first of them again.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome
from backfill_dagster.records.entry import LogEntry
from backfill_dagster.records.snapshot import snapshot_bytes, snapshot_key
from backfill_dagster.standing import logged_shards
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.tiny import state_of
from backfill_dagster_tests.worker.upkeep import cut_short, entries_of, finish, flip, order, remove, root_of

SETTINGS = {
    "record_types": ["app.bsky.feed.like", "app.bsky.graph.follow"],
    "processing": {"batch_size": 2, "concurrent_requests": 1},
}

REWRITE = 6
"""The last entry of the log: 1 a seal, 2 the first pair, 3 the second, 4 a seal, 5 the first account anew, 6 a rewrite
of its parts, which takes what was left of entry 2's with it."""


async def make(folder: Path, network: LocalNetwork) -> None:
    """The state that is damaged later; `yesterday.sqlite` is its ledger as of entry 3."""
    with state_of(folder, network, **SETTINGS) as state:
        await run_all(state)
        order(state, ["did:plc:nobody"])
    shutil.copy(state.config.ledger_path, folder / "yesterday.sqlite")
    with state_of(folder, network, **SETTINGS) as state:
        first, shard = dids_of(state)[0], shard_of(state)
        state.ledger.mark_for_retry(shard, {first: 2})
        await finish(state)
        assert state.log(shard).last_seq() == REWRITE


def shard_of(state: BackfillState) -> str:
    (shard,) = logged_shards(state)
    return shard


def dids_of(state: BackfillState) -> list[str]:
    """The accounts two by two, as they were fetched; the first one is the one that was fetched again."""
    second, third = entries_of(state, shard_of(state))[1:3]
    return [*sorted(second.dids), *sorted(third.dids)]


@dataclass(frozen=True)
class Damage:
    """One damage.

    Attributes:
        name: of it.
        do: does it to an opened state.
        said: `verify` says each of these, of one problem or another.
        lost: which accounts (by number in `dids_of`) have lost something: they are fetched anew, and no others.
        heals: whether a plain run makes it good by itself.
    """

    name: str
    do: Callable[[BackfillState], None]
    said: tuple[str, ...]
    lost: tuple[int, ...] = ()
    heals: bool = False


def part(state: BackfillState, seq: int, record_type: str = "like") -> str:
    """A live part that an entry added."""
    live = state.log(shard_of(state)).read().parts.values()
    return next(one.part.path for one in live if one.seq == seq and one.part.record_type == record_type)


def entry(state: BackfillState, seq: int) -> str:
    return state.log(shard_of(state)).key(seq)


def from_elsewhere(state: BackfillState, seq: int) -> None:
    """A valid entry of another history under this number."""
    key = entry(state, seq)
    strange = replace(LogEntry.from_bytes(state.store.get(key)), nonce="strange", prev="0" * 64).sealed()
    Path(state.store.path(key)).write_bytes(strange.to_bytes())


def cut_off(state: BackfillState, after: int) -> None:
    """The log ends too early: its last entries are gone."""
    for seq in range(after + 1, REWRITE + 1):
        remove(state, entry(state, seq))


def change_ledger(state: BackfillState, statement: str, *parameters: object) -> None:
    state.ledger.close()
    with sqlite3.connect(state.config.ledger_path) as database:
        assert database.execute(statement, parameters).rowcount >= 1
    database.close()


def change_item(state: BackfillState, number: int, change: str) -> None:
    statement = f"UPDATE results SET {change} WHERE did = ? AND shard = ?"
    change_ledger(state, statement, dids_of(state)[number], shard_of(state))


def no_ledger(state: BackfillState) -> None:
    state.ledger.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{state.config.ledger_path}{suffix}").unlink(missing_ok=True)


def ledger_of_yesterday(state: BackfillState) -> None:
    no_ledger(state)
    shutil.copy(root_of(state).parents[1] / "yesterday.sqlite", state.config.ledger_path)


def made_up_item(state: BackfillState) -> None:
    nobody = RepoOutcome(did="did:plc:stranger", outcome=Outcome.COMPLETE)
    state.ledger.put([LedgerItem(backfill="study", shard=shard_of(state), seq=1, result=nobody)])


def snapshot(state: BackfillState, seq: int) -> str:
    log = state.log(shard_of(state))
    log.write_snapshot(log.read())
    return snapshot_key(shard_of(state), seq)


def strange_snapshot(state: BackfillState) -> None:
    """The snapshot of another log that has an entry of this number too."""
    key = snapshot(state, REWRITE)
    other = state.log("else.example~0000")
    fold = other.seal(other.read(), epoch=9, run_id="else")
    Path(state.store.path(key)).write_bytes(snapshot_bytes(replace(fold, seq=REWRITE)))
    shutil.rmtree(root_of(state) / "log" / "else.example~0000")


def back_to_staging(state: BackfillState) -> None:
    """As if it had never been published."""
    key = part(state, 3)
    staged = root_of(state) / "staging" / key
    staged.parent.mkdir(parents=True, exist_ok=True)
    Path(state.store.path(key)).rename(staged)


def orphan(state: BackfillState, seq: int = 3) -> None:
    """A file in a part's place, with a part's name, of which no log knows."""
    source = Path(state.store.path(part(state, seq)))
    shutil.copy(source, source.with_name(f"{shard_of(state)}-00000002-1-0123.parquet"))


LOG_REMEDY = "bring log/ back, or `backfill repair`"

DAMAGES = [
    Damage("part flipped", lambda s: flip(s, part(s, 3)), ("record_type=like/", "with sha256"), lost=(2, 3)),
    Damage("part missing", lambda s: remove(s, part(s, 3)), ("and it is not there",), lost=(2, 3)),
    Damage("part cut", lambda s: cut_short(s, part(s, 3)), ("with sha256", "can't be read"), lost=(2, 3)),
    Damage("part of one", lambda s: flip(s, part(s, 5)), ("record_type=like/",), lost=(0,)),
    Damage("rewritten part", lambda s: remove(s, part(s, 6)), ("it is not there",), lost=(1,)),
    Damage("seal flipped", lambda s: flip(s, entry(s, 1)), ("00000001.json can't be read",)),
    Damage("entry flipped", lambda s: flip(s, entry(s, 3)), ("00000003.json can't be read",), lost=(2, 3)),
    Damage("entry cut", lambda s: cut_short(s, entry(s, 3)), ("00000003.json can't be read",), lost=(2, 3)),
    Damage("entry missing", lambda s: remove(s, entry(s, 3)), ("00000003.json is missing",), lost=(2, 3)),
    Damage("entry replaced", lambda s: from_elsewhere(s, 3), ("00000003.json doesn't follow",), lost=(2, 3)),
    Damage("first pair's entry", lambda s: remove(s, entry(s, 2)), ("00000002.json is missing",), lost=(1,)),
    Damage("superseding entry", lambda s: remove(s, entry(s, 5)), ("00000005.json is missing",), lost=(0,)),
    Damage("rewrite flipped", lambda s: flip(s, entry(s, 6)), ("00000006.json can't be read",), lost=(1,)),
    Damage("rewrite replaced", lambda s: from_elsewhere(s, 6), ("00000006.json doesn't follow",), lost=(1,)),
    Damage("rewrite gone", lambda s: cut_off(s, 5), ("its log ends at 5, the ledger knows entry 6",), lost=(1,)),
    Damage("two gone", lambda s: cut_off(s, 4), ("its log ends at 4", f"5, the log at 2; {LOG_REMEDY}"), lost=(0, 1)),
    Damage("all but the seal", lambda s: cut_off(s, 1), ("the log has not; " + LOG_REMEDY,), lost=(0, 1, 2, 3)),
    Damage("ledger empty", no_ledger, ("the ledger lacks",), heals=True),
    Damage("ledger of yesterday", ledger_of_yesterday, ("the ledger has", "the next run mends it"), heals=True),
    Damage(
        "item gone",
        lambda s: change_ledger(s, "DELETE FROM results WHERE did = ?", dids_of(s)[2]),
        ("lacks",),
        heals=True,
    ),
    Damage("item changed", lambda s: change_item(s, 2, "outcome = 'not_found'"), ("`backfill repair` writes it",)),
    Damage("item ahead", lambda s: change_item(s, 2, "seq = 8"), ("at seq 8, the log at 3",), lost=(2,)),
    Damage("item far ahead", lambda s: change_item(s, 2, "seq = 999999999"), ("at seq 999999999, the log at 3",)),
    Damage(
        "item behind", lambda s: change_item(s, 2, "seq = 1"), ("at seq 1, the log at 3; the next run",), heals=True
    ),
    Damage("item made up", made_up_item, ("the ledger has did:plc:stranger, the log has not",)),
    Damage("snapshot flipped", lambda s: flip(s, snapshot(s, 6)), ("snapshots/", "00000006.json")),
    Damage("snapshot strange", strange_snapshot, ("is not a snapshot of this log; `backfill repair` removes it",)),
    Damage("part unpublished", back_to_staging, ("is live and not published yet",), heals=True),
    Damage("orphan", orphan, ("no log says that this part is live; the next run of its shard",), heals=True),
    Damage("order flipped", lambda s: flip(s, "purges/000001.json"), ("purges/000001.json can't be read",)),
]
