"""One shard against itself: its log, the parts that the log calls live, the rows inside them, its ledger items.

Reads only. What takes more than one shard to see (moves, purges, strangers, stray files) is `verify`'s.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import duckdb

from backfill_dagster.errors import StateError
from backfill_dagster.records.audit import part_problem
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.part_file import shard_and_epoch
from backfill_dagster.records.snapshot import snapshot_key
from backfill_dagster.state import BackfillState
from backfill_dagster.store import ObjectStore
from backfill_dagster.store.duckdb_paths import literal_path

_BOUNDS: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "512MB", "threads": 2}

_PART_REMEDY = "bring it back from a backup, or `backfill repair` reopens the accounts in it"

LOG_REMEDY = "bring log/ back, or `backfill repair` reopens the accounts of what is lost"


def shard_drift(state: BackfillState, shard: str, *, whole: bool = True) -> Iterator[str]:
    """Every difference between a shard's log, parts and ledger items, a line each with its place and remedy.

    Args:
        state: the opened state.
        shard: partition key; nobody may be at work on it.
        whole: read every part; else only those that the last writer has made, and look at the others' sizes.
    """
    if damage := list(log_problems(state, shard)):
        yield from damage
        return
    try:
        fold = state.log(shard).read(whole=True)
    except StateError as error:
        yield str(error)
        return
    with checking_database(state.store) as database:
        yield from shard_problems(state, database, shard, fold, whole=whole)


@contextmanager
def checking_database(store: ObjectStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that counts a store's rows within bounds: several checks may run at once, beside what fetches."""
    with (
        tempfile.TemporaryDirectory(prefix="backfill-check-", ignore_cleanup_errors=True) as spill,
        duckdb.connect(config=_BOUNDS | {"temp_directory": spill}) as database,
    ):
        if (filesystem := store.duckdb_filesystem()) is not None:
            database.register_filesystem(filesystem)
        yield database


def shard_problems(
    state: BackfillState, database: duckdb.DuckDBPyConnection, shard: str, fold: Fold, *, whole: bool = True
) -> Iterator[str]:
    """What the snapshots, parts, rows and ledger items of a shard have against its log.

    Args:
        state: the opened state.
        database: for counting rows.
        shard: partition key, or the reserved shard.
        fold: the log, read whole.
        whole: as of `shard_drift`.
    """
    yield from _snapshot_problems(state, shard, fold)
    new = {path: live for path, live in fold.parts.items() if whole or _is_of_last_writer(path, fold)}
    can_read = yield from _part_problems(state, new.values())
    yield from _size_problems(state, [live.part for path, live in fold.parts.items() if path not in new])
    if can_read and (whole or new):
        yield from _row_problems(state, database, shard, fold)
    yield from _ledger_problems(state, shard, fold)


def _is_of_last_writer(path: str, fold: Fold) -> bool:
    """Whether a part was written in the log's newest epoch, by the name it carries."""
    named = shard_and_epoch(path)
    return named is None or named[1] == fold.epoch


def log_problems(state: BackfillState, shard: str) -> Iterator[str]:
    """Every entry that can't count, each with its place."""
    log = state.log(shard)
    for seq, problem in sorted(log.damaged().items()):
        yield f"{log.key(seq)} {problem}; bring it back from a backup, or `backfill repair` voids it"


def _snapshot_problems(state: BackfillState, shard: str, fold: Fold) -> Iterator[str]:
    """Snapshots are a cache: the entries count, but whoever reads from a wrong one is misled."""
    for seq, problem in sorted(state.log(shard).bad_snapshots(fold).items()):
        yield f"{snapshot_key(shard, seq)}: {problem}; `backfill repair` removes it"


def _part_problems(state: BackfillState, parts: Iterable[LivePart]) -> Generator[str, None, bool]:
    """Each live part is published, and is byte for byte what the log says; returns whether all could be read.

    Where one couldn't, rows can't be counted either, and that would only hide the reason under more lines.
    """
    can_read = True
    for live in parts:
        try:
            problem = part_problem(state.store, live.part)
        except StateError as error:
            can_read = False
            yield str(error)
            continue
        if problem is not None:
            yield f"{live.part.path}: {problem}; {_PART_REMEDY}"
    return can_read


def _size_problems(state: BackfillState, parts: Iterable[Part]) -> Iterator[str]:
    """Each live part is there and has the size that the log says."""
    for part in parts:
        size = state.store.size(part.path)
        if size != part.bytes:
            found = "is not there" if size is None else f"has {size} bytes"
            yield f"{part.path}: {found}, the log says {part.bytes} bytes; {_PART_REMEDY}"


def _row_problems(state: BackfillState, database: duckdb.DuckDBPyConnection, shard: str, fold: Fold) -> Iterator[str]:
    """The rows inside are as many as the log says, belong to DIDs that have an outcome, and no URI is there twice."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for record_type, parts in _by_type(fold).items():
        there = [part for part in parts if state.store.exists(part.path)]
        if not there:
            continue
        try:
            rows = _count_rows(state, database, fold, there)
        except duckdb.Error as error:
            yield f"{shard}: its {record_type or 'quarantine'} parts can't be read: {str(error).splitlines()[0]}"
            continue
        for author, count, distinct in rows:
            if count != distinct:
                yield f"{shard}: {author} has {count - distinct} URIs twice in {record_type or 'quarantine'}"
            counted[author][record_type or ""] += count
    if any(not state.store.exists(path) for path in fold.parts):
        return  # named above already; the counts of a damaged shard would only repeat it
    for did in sorted({*counted, *fold.dids}):
        if did not in fold.dids:
            yield f"{shard}: {did} has rows and no outcome"
            continue
        result = fold.dids[did][0]
        quarantined = counted[did].pop("", 0)
        if counted[did] != Counter(result.records_by_type):
            yield f"{shard}: {did} has rows {dict(counted[did])}, its outcome says {dict(result.records_by_type)}"
        if quarantined != result.quarantined:
            yield f"{shard}: {did} has {quarantined} records in quarantine, its outcome says {result.quarantined}"


def _by_type(fold: Fold) -> dict[str | None, list[Part]]:
    parts: dict[str | None, list[Part]] = defaultdict(list)
    for live in fold.parts.values():
        parts[live.part.record_type].append(live.part)
    return parts


def _count_rows(
    state: BackfillState, database: duckdb.DuckDBPyConnection, fold: Fold, parts: list[Part]
) -> list[tuple[str, int, int]]:
    """(author, live rows, distinct URIs) over the given parts."""
    paths = {state.store.path(part.path): part.path for part in parts}
    dead = [(path, did) for path, key in paths.items() for did in fold.dead_in(fold.parts[key])]
    database.execute("CREATE OR REPLACE TEMP TABLE dead (filename VARCHAR, author VARCHAR)")
    if dead:
        database.executemany("INSERT INTO dead VALUES (?, ?)", dead)
    return database.execute(
        "SELECT author, count(*), count(DISTINCT uri) FROM "
        "(SELECT author, uri, filename FROM read_parquet(?, filename = true, hive_partitioning = false)) AS row "
        "ANTI JOIN dead USING (filename, author) GROUP BY author",
        [[*map(literal_path, paths)]],
    ).fetchall()


def _ledger_problems(state: BackfillState, shard: str, fold: Fold) -> Iterator[str]:
    """The ledger has the log's newest word on every DID, and none of its own."""
    seen = set()
    for item in state.ledger.items(shard):
        did = item.result.did
        seen.add(did)
        known = fold.dids.get(did)
        if known is None:
            yield f"{shard}: the ledger has {did}, the log has not; {LOG_REMEDY}"
        elif known[1] < item.seq:
            yield f"{shard}: the ledger has {did} at seq {item.seq}, the log at {known[1]}; {LOG_REMEDY}"
        elif known[1] != item.seq:
            behind = f"the ledger has {did} at seq {item.seq}, the log at {known[1]}"
            yield f"{shard}: {behind}; the next run mends it, or `backfill repair`"
        elif state.ledger.as_kept(replace(item, result=known[0].for_ledger)) != item:
            yield f"{shard}: the ledger's item of {did} differs from the log's; `backfill repair` writes it again"
    for did in sorted(set(fold.dids) - seen):
        yield f"{shard}: the ledger lacks {did}; the next run mends it, or `backfill repair`"
