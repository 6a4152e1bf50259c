"""Changes of what a shard holds without any fetching: superseded rows out, purges carried out, small parts merged.

Each step is whole by itself: an entry that adds and removes parts, then publish, then delete. How rows are copied is
`records.rewrite`'s.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from backfill_dagster.atproto.at_uri import author_of
from backfill_dagster.model import RepoOutcome
from backfill_dagster.progress import has_rewrites
from backfill_dagster.records.compact import TARGET_BYTES, small_groups
from backfill_dagster.records.entry import ENTRY_MAX_BYTES, outcome_bytes
from backfill_dagster.records.purges import Purges
from backfill_dagster.records.read import part_batches
from backfill_dagster.records.rewrite import Rewrite
from backfill_dagster.worker.writer import ShardWriter

T = TypeVar("T")

PURGED_PER_ENTRY = 200
"""Accounts or records that one entry purges, at most: a record is in one live part or none."""

OUTCOMES_BYTES = ENTRY_MAX_BYTES * 3 // 8
"""What names and outcomes of one entry weigh, at most: the parts of it need as much again."""


def take_out_superseded(writer: ShardWriter) -> None:
    """Copy live parts without the rows of superseded DIDs, and delete the old ones."""
    through = writer.fold.seq
    while has_rewrites(writer.fold):
        change = writer.rewriter().superseded()
        writer.commit_rewrite(change, rewritten=through if change.is_all else 0)


def compact(writer: ShardWriter, target_bytes: int = TARGET_BYTES) -> int:
    """Merge small parts until none is left to merge; returns how many parts fewer there are."""
    before = len(writer.fold.parts)
    while groups := list(small_groups(writer.state.store, writer.fold, target_bytes)):
        for group in groups:
            writer.commit_rewrite(writer.rewriter().merged(group))
    return before - len(writer.fold.parts)


def carry_out_purges(writer: ShardWriter, purges: Purges, planned: Collection[str]) -> None:
    """Remove what has been purged and the shard's log doesn't say so yet; accounts first, then single records.

    Args:
        writer: of the shard.
        purges: all orders.
        planned: the DIDs that the plan gives the shard, delisted ones too: they are to be kept out later as well.
    """
    for dids in cut(purges.open_dids(writer.fold, planned), PURGED_PER_ENTRY, lambda did: 4 * len(did)):
        _purge_dids(writer, dids)
    take_out_superseded(writer)
    heard: set[str] = set()
    for uris in cut(purges.open_uris(writer.fold, planned), PURGED_PER_ENTRY, partial(_uri_bytes, writer, heard)):
        _purge_uris(writer, uris)


def _uri_bytes(writer: ShardWriter, heard: set[str], uri: str) -> int:
    """What the record adds to an entry; the outcome of its author comes once, with the author's first record."""
    did = author_of(uri)
    known = None if did in heard else writer.fold.dids.get(did)
    heard.add(did)
    return 2 * len(uri) + (outcome_bytes(known[0]) if known else 0)


def _purge_dids(writer: ShardWriter, dids: Sequence[str]) -> None:
    outcome = partial(
        RepoOutcome.purged,
        wanted=writer.wanted,
        finished_at=writer.state.effects.now_text(),
        run_id=writer.run_id,
        config_hash=writer.state.config.config_hash,
    )
    known = writer.fold.dids
    with_rows = [did for did in dids if did in known and known[did][0].has_rows]
    writer.commit_rewrite(Rewrite(), dids={did: outcome(did) for did in dids}, supersedes=with_rows, purged=dids)


def _purge_uris(writer: ShardWriter, uris: Sequence[str]) -> None:
    by_author: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        by_author[author_of(uri)].append(uri)
    change = writer.rewriter().without(by_author)
    lost = _lost_rows(writer, change, uris)
    outcomes = {did: _less(writer, did, counts) for did, counts in lost.items() if did in writer.fold.dids}
    ledger = writer.state.ledger
    marks, known = ledger.retry_marks(writer.shard), writer.fold.dids
    # The new entry corrects counts and answers no mark, so marks go before it: who dies here marks once more.
    reopened = [did for did in outcomes if marks.get(did, 0) >= known[did][1]]
    ledger.mark_for_retry(writer.shard, dict.fromkeys(reopened, writer.fold.seq + 1))
    writer.commit_rewrite(change, dids=outcomes, purged=uris)


def _lost_rows(writer: ShardWriter, change: Rewrite, uris: Sequence[str]) -> Mapping[str, Counter[str | None]]:
    """DID -> record type (None: quarantine) -> live rows that go, counted in the parts that hold them."""
    lost: dict[str, Counter[str | None]] = defaultdict(Counter)
    wanted = pa.array(uris, pa.string())
    for path in change.removes:
        live = writer.fold.parts[path]
        dead = writer.fold.dead_in(live)
        for batch in part_batches(writer.state.store, path, ["uri", "author"]):
            for did in batch.filter(pc.is_in(batch.column("uri"), wanted)).column("author").to_pylist():
                if did not in dead:
                    lost[did][live.part.record_type] += 1
    return lost


def _less(writer: ShardWriter, did: str, lost: Counter[str | None]) -> RepoOutcome:
    before = writer.fold.dids[did][0]
    counts = Counter(before.records_by_type)
    counts.subtract({name: count for name, count in lost.items() if name is not None})
    return replace(
        before,
        records_by_type={name: count for name, count in counts.items() if count},
        quarantined=before.quarantined - lost[None],
        tree=(),  # says how many rows there were below a node
    )


def cut(items: Iterable[T], most: int, weight: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in lists of `most` or fewer that weigh `OUTCOMES_BYTES` or less; a heavier item is a list of its own.

    `weight` is asked once for every item, in order.
    """
    chunk: list[T] = []
    total = 0
    for item in items:
        added = weight(item)
        if chunk and (len(chunk) == most or total + added > OUTCOMES_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += added
    if chunk:
        yield chunk
