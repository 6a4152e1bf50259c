"""Where each DID's live rows lie in a shard's parts, for whoever has to read one DID among thousands.

Authors stand together in a part, so a DID is a few ranges of rows. What is made of the rows is not decided here.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.read import open_part, unreadable
from backfill_dagster.store.base import ObjectStore

CACHE_BYTES = 128 * 1024 * 1024
"""Row groups kept decoded: DIDs come in the order in which they lie in the parts, more or less."""


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows `start` to `stop` of a row group of a part; a record type of None is the quarantine."""

    record_type: str | None
    path: str
    group: int
    start: int
    stop: int


class RowIndex:
    """The live rows of a shard by DID, as of a fold. Reads only the authors to begin with.

    Args:
        store: where the parts are.
        fold: the shard's log; parts it says are live must stay as long as the index is used.
        cache_bytes: decoded rows that are kept, at most (one row group at least).

    Raises:
        StateError: a part is missing or unreadable; here and in `batches`.
    """

    def __init__(self, store: ObjectStore, fold: Fold, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._store = store
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._held_bytes = 0
        self._ranges: dict[str, list[RowRange]] = defaultdict(list)
        for live in fold.parts.values():
            self._take_in(live, fold.dead_in(live))

    def ranges(self, did: str) -> list[RowRange]:
        """Where the DID's rows are, part by part."""
        return self._ranges.get(did, [])

    def batches(self, did: str, record_types: Collection[str | None] | None = None) -> Iterator[tuple[str | None, Any]]:
        """The DID's rows as (record type, Arrow table of all columns), in the order in which they lie.

        Args:
            did: whose.
            record_types: only rows of these, other row groups are not read; None: all.
        """
        for one in self.ranges(did):
            if record_types is None or one.record_type in record_types:
                yield one.record_type, self._group(one.path, one.group).slice(one.start, one.stop - one.start)

    def _take_in(self, live: LivePart, dead: set[str]) -> None:
        path, record_type = live.part.path, live.part.record_type
        with open_part(self._store, path) as file:
            for group in range(file.num_row_groups):
                start = 0
                for ends, did in _runs(self._read(file, path, group, ["author"]).column("author")):
                    if did not in dead:
                        self._ranges[did].append(RowRange(record_type, path, group, start, ends))
                    start = ends

    def _group(self, path: str, group: int) -> Any:
        key = (path, group)
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        with open_part(self._store, path) as file:
            table = self._read(file, path, group, None)
        self._cached[key] = table
        self._held_bytes += table.nbytes
        while self._held_bytes > self._cache_bytes and len(self._cached) > 1:
            _, oldest = self._cached.popitem(last=False)
            self._held_bytes -= oldest.nbytes
        return table

    def _read(self, file: Any, path: str, group: int, columns: list[str] | None) -> Any:
        try:
            return file.read_row_group(group, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._store, path, error) from error


def _runs(authors: Any) -> Iterator[tuple[int, str]]:
    """(end, author) of each run of equal authors."""
    offset = 0
    for chunk in authors.chunks:
        runs = pc.run_end_encode(chunk)
        for end, did in zip(runs.run_ends.to_pylist(), runs.values.to_pylist(), strict=True):
            yield offset + end, did
        offset += len(chunk)
