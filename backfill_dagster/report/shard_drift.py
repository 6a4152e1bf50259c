"""One shard against itself: its log, the parts that the log calls live, the rows inside them, its ledger items.

Reads only. What takes more than one shard to see (moves, purges, strangers, stray files) is `verify`'s.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import duckdb

from backfill_dagster.errors import StateError
from backfill_dagster.records.audit import part_problem
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.snapshot import snapshot_key
from backfill_dagster.state import BackfillState

LOG_REMEDY = "bring log/ back, or `backfill repair` reopens the accounts of what is lost"


def shard_drift(state: BackfillState, shard: str) -> Iterator[str]:
    """Every difference between a shard's log, parts and ledger items, a line each with its place and remedy.

    Nobody may be at work on the shard.
    """
    if damage := list(log_problems(state, shard)):
        yield from damage
        return
    try:
        fold = state.log(shard).read(whole=True)
    except StateError as error:
        yield str(error)
        return
    with duckdb.connect() as database:
        yield from shard_problems(state, database, shard, fold)


def shard_problems(state: BackfillState, database: duckdb.DuckDBPyConnection, shard: str, fold: Fold) -> Iterator[str]:
    """What the snapshots, parts, rows and ledger items of a shard have against its log.

    Args:
        state: the opened state.
        database: for counting rows.
        shard: partition key, or the reserved shard.
        fold: the log, read whole.
    """
    yield from _snapshot_problems(state, shard, fold)
    yield from _part_problems(state, fold)
    yield from _row_problems(state, database, shard, fold)
    yield from _ledger_problems(state, shard, fold)


def log_problems(state: BackfillState, shard: str) -> Iterator[str]:
    """Every entry that can't count, each with its place."""
    log = state.log(shard)
    for seq, problem in sorted(log.damaged().items()):
        yield f"{log.key(seq)} {problem}; bring it back from a backup, or `backfill repair` voids it"


def _snapshot_problems(state: BackfillState, shard: str, fold: Fold) -> Iterator[str]:
    """Snapshots are a cache: the entries count, but whoever reads from a wrong one is misled."""
    for seq, problem in sorted(state.log(shard).bad_snapshots(fold).items()):
        yield f"{snapshot_key(shard, seq)}: {problem}; `backfill repair` removes it"


def _part_problems(state: BackfillState, fold: Fold) -> Iterator[str]:
    """Each live part is published, and is byte for byte what the log says."""
    for path, live in fold.parts.items():
        try:
            problem = part_problem(state.store, live.part)
        except StateError as error:
            yield str(error)
            continue
        if problem is not None:
            yield f"{path}: {problem}; bring it back from a backup, or `backfill repair` reopens the accounts in it"


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
        [list(paths)],
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
        elif known[0].for_ledger != item.result:
            yield f"{shard}: the ledger's item of {did} differs from the log's; `backfill repair` writes it again"
    for did in sorted(set(fold.dids) - seen):
        yield f"{shard}: the ledger lacks {did}; the next run mends it, or `backfill repair`"
