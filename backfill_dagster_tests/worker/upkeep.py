"""What the tests of compaction, purges and repair share: the commands as calls, all rows with all columns, entries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from backfill_dagster.ledger import Lease
from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.model import Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.entry import LogEntry
from backfill_dagster.records.purges import PurgeLog
from backfill_dagster.records.read import live_rows
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import logged_shards
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import BackfillRun, run_backfill, shards_with_work
from backfill_dagster.worker.compaction import compact_backfill
from backfill_dagster.worker.purge import carry_out
from backfill_dagster.worker.repair import Repaired, repair_backfill
from backfill_dagster.worker.retry import mark_for_retry
from backfill_dagster.worker.upkeep import Upkeep
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, run_all
from backfill_dagster_tests.worker.tiny import state_of

AllRows = dict[str | None, list[dict[str, Any]]]

SUBJECT = {"uri": "at://did:web:a.example/app.bsky.feed.post/3k", "cid": "bafyrei"}
LIKE = {"collection": "app.bsky.feed.like", "record": {"subject": SUBJECT}}
BROKEN = {"collection": "app.bsky.feed.like", "record": {"subject": 7}}
"""A record that breaks its row contract: it goes to the quarantine."""

STEPS_MAX = 120

HELD_SECONDS = 3
"""A sixth of it is what a challenger waits to see the owner's heart beat."""


def order(state: BackfillState, dids: Sequence[str] = (), uris: Sequence[str] = ()) -> None:
    """The first half of `backfill purge`: the order is committed."""
    PurgeLog(state.store).append(list(dids), list(uris), at=state.effects.now_text(), by="a test", reason="")


async def purge(state: BackfillState, dids: Sequence[str] = (), uris: Sequence[str] = ()) -> Upkeep[None]:
    order(state, dids, uris)
    return await carry_out_orders(state)


async def carry_out_orders(state: BackfillState) -> Upkeep[None]:
    return await carry_out(state, PlanStore(state.store).read(), scope_of(state), run_id=state.effects.new_id())


async def compact(state: BackfillState, *keys: str, **options: int) -> Upkeep[int]:
    plan = PlanStore(state.store).read()
    return await compact_backfill(state, plan, scope_of(state), keys, run_id=state.effects.new_id(), **options)


async def repair(state: BackfillState) -> Repaired:
    plan = PlanStore(state.store).read()
    return await repair_backfill(state, plan, scope_of(state), run_id=state.effects.new_id())


async def finish(state: BackfillState) -> BackfillRun:
    """Run what has work, by the plan as it is."""
    plan, selection = PlanStore(state.store).read(), load_selection(state.config)
    shards = shards_with_work(state, plan, selection.scope)
    return await run_backfill(state, plan, selection, shards, run_id=state.effects.new_id())


def left_to_do(state: BackfillState) -> list[str]:
    """Shards that a run would do something for."""
    return [one.key for one in shards_with_work(state, PlanStore(state.store).read(), scope_of(state))]


def refetch_all(state: BackfillState) -> None:
    """`backfill retry` with every outcome there is."""
    mark_for_retry(state, PlanStore(state.store).read(), outcomes=list(Outcome))


def scope_of(state: BackfillState) -> str:
    return load_selection(state.config).scope


def root_of(state: BackfillState) -> Path:
    return Path(str(state.config.state_path))


def all_rows(state: BackfillState) -> AllRows:
    """Record type (None: the quarantine) -> every live row with every column, in the order of the parts."""
    found: AllRows = {}
    for shard in sorted(logged_shards(state)):
        fold = state.log(shard).read()
        for record_type in sorted({live.part.record_type for live in fold.parts.values()}, key=str):
            found.setdefault(record_type, []).extend(live_rows(state.store, fold, record_type).to_pylist())
    return found


def by_uri(rows: AllRows) -> AllRows:
    return {name: sorted(some, key=lambda row: row["uri"]) for name, some in rows.items()}


def uris_of(state: BackfillState, did: str, record_type: str | None) -> list[str]:
    """The DID's live rows of a type, or in quarantine."""
    return [row["uri"] for row in all_rows(state).get(record_type, []) if row["author"] == did]


def all_uris(state: BackfillState) -> set[str]:
    """Of every live row, those in quarantine too."""
    return {row["uri"] for rows in all_rows(state).values() for row in rows}


def authors_on_disk(state: BackfillState) -> set[str]:
    """Whose rows are in any file below records/ and quarantine/, live or not."""
    root = root_of(state)
    paths = [*root.glob("records/*/*.parquet"), *root.glob("quarantine/*.parquet"), *root.glob("staging/**/*.parquet")]
    return {author for path in paths for author in pq.read_table(path, columns=["author"])["author"].to_pylist()}


def entries_of(state: BackfillState, shard: str, after: int = 0) -> list[LogEntry]:
    """The entries of a log beyond seq `after`; an unreadable one is an error."""
    log = state.log(shard)
    return [LogEntry.from_bytes(state.store.get(log.key(seq))) for seq in range(after + 1, log.last_seq() + 1)]


def flip(state: BackfillState, key: str) -> None:
    """One bit of a file is another: in a part, of the rows themselves."""
    path = Path(state.store.path(key))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def blot(state: BackfillState, key: str) -> None:
    """Nothing in the middle of a file is as it was."""
    path = Path(state.store.path(key))
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"x" * (len(content) - 200) + content[-100:])


def remove(state: BackfillState, key: str) -> None:
    Path(state.store.path(key)).unlink()


def cut_short(state: BackfillState, key: str) -> None:
    path = Path(state.store.path(key))
    path.write_bytes(path.read_bytes()[:-7])


@contextmanager
def own_locks(folder: Path) -> Iterator[None]:
    """For fixtures of a whole module, which begin before a test has its locks."""
    with pytest.MonkeyPatch().context() as patch:
        patch.setenv("BACKFILL_LOCK_DIR", str(folder / "locks"))
        yield


async def finished_in(folder: Path, network: LocalNetwork, **changes: Any) -> Path:
    """A finished backfill for the tests of a whole module, which work on copies."""
    with own_locks(folder), state_of(folder, network, **changes) as state:
        await run_all(state)
    return folder


@contextmanager
def copied(base: Path, copy: Path) -> Iterator[BackfillState]:
    """A state of its own that begins as another one is now; copies inside of the other (`copy...`) stay behind."""
    shutil.copytree(base, copy, ignore=shutil.ignore_patterns("copy*"))
    with opened(copy / "study.yaml", InstantTime().effects()) as state:
        yield state


@contextmanager
def held(state: BackfillState, shard: str) -> Iterator[str]:
    """Somebody else works on a shard; gives the owner's name."""
    name = f"{state.config.name}/{shard}"
    lease = Lease.acquire(
        state.ledger.leases, name, owner="somebody else", run_id="theirs", lease_seconds=HELD_SECONDS, at_least_epoch=1
    )
    with lease:
        yield "somebody else"


async def never_asked(network: LocalNetwork, did: str) -> Fault:
    """From now on a request about this DID is an error; `shown` of the fault says how often there was one."""
    await network.set_faults([Fault(kind="status", status=500, did=did)])
    (fault,) = network.faults.faults
    return fault
