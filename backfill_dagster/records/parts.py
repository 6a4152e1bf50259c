"""The parts of one batch: verified repos go in, staged Parquet files come out, one per record type.

What a row is belongs to `rows.py`, what makes parts live to `log.py`. Memory is bounded in bytes: what waits as Python
values, what waits as Arrow; so is the number of open files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from backfill_dagster.records.columns import quarantine_batch, record_batch
from backfill_dagster.records.entry import Part
from backfill_dagster.records.merge import as_seen, merged
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
from backfill_dagster.records.schema import Raw, collection_of, quarantine_schema, schema_for
from backfill_dagster.records.selection import Selection
from backfill_dagster.store.base import ObjectStore

FLUSH_BYTES = 8 * 1024 * 1024
"""Rows become Arrow when they weigh this much, about 16,000 of them: as Python values they take three times as much."""

ARROW_BYTES_MAX = 32 * 1024 * 1024
"""Arrow data that waits in memory; beyond it the type with most of it gets a row group in its file."""

OPEN_FILES_MAX = 64

MERGED_BYTES_MAX = 256 * 1024 * 1024
"""Weight of new rows that may wait to be put between old ones; a delta with more is fetched whole by the worker."""

OldRows = Mapping[str | None, Callable[[], Iterator[Any]]]
"""Record type (None: quarantine) -> what gives its rows that stand, as Arrow record batches in repo order."""


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

    def add_repo(
        self,
        repo: VerifiedRepo,
        *,
        fetched_at_us: int,
        rev: str | None,
        purged: frozenset[str] = frozenset(),
        old: OldRows | None = None,
    ) -> RepoCounts:
        """Take in a repo that has been verified to the last block.

        Args:
            repo: the repo, or of a partial one what it has.
            fetched_at_us: when it was fetched, microseconds since the epoch.
            rev: its revision; empty or None for version 2 repos.
            purged: AT URIs that may not be stored.
            old: rows of the DID that stand beside those of the repo, in this writer's schemas; they count as its own.

        Raises:
            StateError: the disk refused.
        """
        counts = RepoCounts()
        facts = RepoFacts(repo, rev or None, fetched_at_us)
        if old:
            self._flush()  # what waits as rows is of other DIDs, and stands before this one's
            self._flush_at = self._weight + MERGED_BYTES_MAX
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
            if purged:
                group = [one for one in group if f"at://{repo.did}/{collection}/{one[1]}" not in purged]
            self._add(reader, facts, group, counts, problem)
        if old:
            for record_type, batches in old.items():
                self._merge(record_type, facts, batches(), counts)
            self._flush_at = self._weight + FLUSH_BYTES
        return counts

    def _merge(self, record_type: str | None, facts: RepoFacts, old: Iterator[Any], counts: RepoCounts) -> None:
        """Put a DID's old rows between the new ones that wait, which are all its own."""
        table = self._tables.get(record_type)
        if table is None:
            table = self._tables[record_type] = _Table(record_type, collection_of(record_type))
        new = self._taken(table) if table.rows else None
        seen = (as_seen(batch, rev=facts.rev, fetched_at_us=facts.fetched_us) for batch in old)
        before = table.flushed
        for batch in merged(seen, new):
            table.batches.append(batch)
            table.flushed += batch.num_rows
            table.arrow_bytes += batch.nbytes
            self._arrow_bytes += batch.nbytes
            self._weight += batch.nbytes
            self._spill()
        added = table.flushed - before - (0 if new is None else new.num_rows)
        counts.kept += added
        if record_type is None:
            counts.quarantined += added
        elif added:
            counts.records_by_type[record_type] = counts.records_by_type.get(record_type, 0) + added

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
        self._spill()

    def _spill(self) -> None:
        """While too much Arrow data waits: the type with most of it becomes a row group of its file."""
        while self._arrow_bytes > ARROW_BYTES_MAX:
            open_files = sum(one.file is not None for one in self._tables.values())
            candidates = [one for one in self._tables.values() if one.file is not None or open_files < OPEN_FILES_MAX]
            largest = max(candidates, key=lambda one: one.arrow_bytes)
            if not largest.batches:
                return
            self._write_out(largest)

    def _taken(self, table: _Table) -> Any:
        """The rows that wait, as Arrow; they wait no more."""
        rows, table.rows = table.rows, []
        if table.record_type is None:
            return quarantine_batch(rows)
        return record_batch(table.record_type, table.collection, rows, self._raw, self._selection)

    def _to_arrow(self, table: _Table) -> int:
        batch = self._taken(table)
        table.batches.append(batch)
        table.flushed += batch.num_rows
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
