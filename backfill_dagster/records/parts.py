"""The parts of one batch: verified repos go in, staged Parquet files come out, one per record type.

What a row is belongs to `rows.py`, what makes parts live to `log.py`. Memory is bounded in bytes: what waits as Python
values, what waits as Arrow; so is the number of open files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from backfill_dagster.records.columns import quarantine_batch, record_batch
from backfill_dagster.records.entry import Part
from backfill_dagster.records.part_file import PartFile, part_key
from backfill_dagster.records.rows import (
    COLLECTIONS_MAX,
    CollectionRows,
    Entry,
    RepoCounts,
    RepoFacts,
    Row,
    VerifiedRepo,
)
from backfill_dagster.records.schema import Raw, quarantine_schema, schema_for
from backfill_dagster.records.selection import Selection
from backfill_dagster.store.base import ObjectStore

FLUSH_BYTES = 8 * 1024 * 1024
"""Rows become Arrow when they weigh this much, about 16,000 of them: as Python values they take three times as much."""

ARROW_BYTES_MAX = 32 * 1024 * 1024
"""Arrow data that waits in memory; beyond it the type with most of it gets a row group in its file."""

OPEN_FILES_MAX = 64


@dataclass(slots=True)
class _Table:
    """One record type's rows: first as tuples, then as Arrow, then in a file."""

    record_type: str | None
    collection: str
    rows: list[Row] = field(default_factory=list)
    flushed: int = 0
    batches: list[Any] = field(default_factory=list)
    arrow_bytes: int = 0
    file: PartFile | None = None

    @property
    def count(self) -> int:
        """Rows so far, wherever they are."""
        return self.flushed + len(self.rows)


class BatchWriter:
    """Collects the rows of many repos and writes them as the parts of one log entry.

    Use from one thread only. A DID's rows all go into this batch's parts, in repo order. When a method raises, or the
    batch is not wanted any more, **the caller has to call `discard`**: rows of the repo in hand may be in already.

    Args:
        store: where parts are staged.
        shard: partition key.
        seq: number that the batch's log entry will have.
        epoch: the writer's epoch.
        selection: which records are wanted.
        raw: how the whole record is kept.
        compression: `zstd`, `snappy`, `gzip`, `lz4` or `none`.
        unique: gives hex digits that are never the same twice.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        shard: str,
        seq: int,
        epoch: int,
        selection: Selection,
        raw: Raw,
        compression: str,
        unique: Callable[[], str],
    ) -> None:
        self._store, self._shard, self._seq, self._epoch = store, shard, seq, epoch
        self._selection, self._raw, self._compression, self._unique = selection, raw, compression, unique
        self._readers: dict[str, CollectionRows] = {}
        self._tables: dict[str | None, _Table] = {}
        self._weight = self._arrow_bytes = 0
        self._flush_at = FLUSH_BYTES

    @property
    def rows(self) -> int:
        """Rows so far, without those of the quarantine."""
        return sum(one.count for one in self._tables.values() if one.record_type is not None)

    @property
    def bytes_buffered(self) -> int:
        """What the batch's rows weigh so far, in memory or already in staging: blocks and a fixed sum per row."""
        return self._weight

    @property
    def parts(self) -> int:
        """How many parts `finish` will return; each takes some 300 bytes of the log entry."""
        return len(self._tables)

    def add_repo(self, repo: VerifiedRepo, *, fetched_at_us: int, rev: str | None) -> RepoCounts:
        """Take in a repo that has been verified to the last block.

        Args:
            repo: the repo.
            fetched_at_us: when it was fetched, microseconds since the epoch.
            rev: its revision; empty or None for version 2 repos.

        Raises:
            StateError: the disk refused.
        """
        counts = RepoCounts()
        facts = RepoFacts(repo, rev or None, fetched_at_us)
        wanted = 0
        for collection, entries in groupby(repo.entries, key=itemgetter(0)):
            group = list(entries)
            counts.seen_by_collection[collection] = counts.seen_by_collection.get(collection, 0) + len(group)
            reader = self._reader(collection)
            if reader is None:
                continue
            problem = reader.problem
            if problem is None:
                wanted += 1
                if wanted > COLLECTIONS_MAX:
                    problem = f"the repo has more than {COLLECTIONS_MAX} of the wanted collections"
            self._add(reader, facts, group, counts, problem)
        return counts

    def finish(self) -> list[Part]:
        """Write what is left, flush everything to the medium, and return the staged parts by path.

        Raises:
            StateError: the disk refused.
        """
        self._flush()
        return sorted((self._write_out(table).finish() for table in self._tables.values()), key=lambda part: part.path)

    def discard(self) -> None:
        """Remove every staged file of this batch, finished or not; harmless to repeat."""
        for table in self._tables.values():
            if table.file is not None:
                table.file.discard()
        self._tables.clear()

    def _reader(self, collection: str) -> CollectionRows | None:
        reader = self._readers.get(collection)
        if reader is None and self._selection.wants_collection(collection):
            reader = self._readers[collection] = CollectionRows(collection, self._selection, self._raw)
        return reader

    def _add(
        self, reader: CollectionRows, facts: RepoFacts, entries: list[Entry], counts: RepoCounts, problem: str | None
    ) -> None:
        tables = self._tables
        before = {name: tables[name].count if name in tables else 0 for name in (*reader.record_types, None)}
        for name, row, weight in reader.rows(facts, entries, counts, problem):
            if name not in tables:
                tables[name] = _Table(name, reader.collection)
            tables[name].rows.append(row)
            self._weight += weight
            if self._weight >= self._flush_at:
                self._flush()
        for name, count in before.items():
            added = (tables[name].count if name in tables else 0) - count
            if name is None:
                counts.quarantined += added
            elif added:
                counts.records_by_type[name] = counts.records_by_type.get(name, 0) + added

    def _flush(self) -> None:
        """Turn all rows into Arrow; then, if too much of that waits, the types with most of it into row groups."""
        self._flush_at = self._weight + FLUSH_BYTES
        for table in self._tables.values():
            if table.rows:
                self._arrow_bytes += self._to_arrow(table)
        while self._arrow_bytes > ARROW_BYTES_MAX:
            open_files = sum(one.file is not None for one in self._tables.values())
            candidates = [one for one in self._tables.values() if one.file is not None or open_files < OPEN_FILES_MAX]
            largest = max(candidates, key=lambda one: one.arrow_bytes)
            if not largest.batches:
                return
            self._write_out(largest)

    def _to_arrow(self, table: _Table) -> int:
        rows, table.rows = table.rows, []
        if table.record_type is None:
            batch = quarantine_batch(rows)
        else:
            batch = record_batch(table.record_type, table.collection, rows, self._raw, self._selection)
        table.batches.append(batch)
        table.flushed += len(rows)
        arrow_bytes: int = batch.nbytes
        table.arrow_bytes += arrow_bytes
        return arrow_bytes

    def _write_out(self, table: _Table) -> PartFile:
        if table.file is None:
            key = part_key(
                table.record_type, shard=self._shard, seq=self._seq, epoch=self._epoch, unique=self._unique()
            )
            schema = quarantine_schema() if table.record_type is None else schema_for(table.record_type, self._raw)
            table.file = PartFile(self._store, key, table.record_type, schema, self._compression)
        if table.batches:
            table.file.write(table.batches)
            self._arrow_bytes -= table.arrow_bytes
            table.batches, table.arrow_bytes = [], 0
        return table.file
