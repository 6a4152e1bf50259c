"""Rows taken out of live parts, and small parts made one: new parts without them, to be put into one log entry.

Which rows are dead is `fold.py`'s, the entry and everything after it (publish, delete) the worker's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from backfill_dagster.errors import StateError
from backfill_dagster.records.audit import part_problem
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.part_file import PartFile, part_key
from backfill_dagster.records.read import open_part, part_batches, rows_of
from backfill_dagster.store.base import ObjectStore

ROW_GROUP_BYTES = 32 * 1024 * 1024

PARTS_PER_ENTRY = 400
"""Parts that one entry replaces, at most: each takes up to 1 KiB in `removes` and in `adds`, and an entry 1 MiB."""


@dataclass(slots=True)
class Rewrite:
    """What the log entry of a rewrite says.

    Attributes:
        adds: new parts, staged.
        removes: paths of the parts that they replace; a part without a live row has no successor.
        is_all: whether nothing was left for a further entry.
    """

    adds: list[Part] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)
    is_all: bool = True


class PartRewriter:
    """Makes the new parts of one log entry. What is staged is the caller's to commit, or it goes with an exception.

    Args:
        store: where the parts are.
        fold: the sealed log; the entry to be will be `fold.seq + 1`.
        shard: partition key.
        epoch: the writer's.
        compression: as of `BatchWriter`.
        unique: gives hex digits that are never the same twice.
    """

    def __init__(
        self, store: ObjectStore, fold: Fold, *, shard: str, epoch: int, compression: str, unique: Callable[[], str]
    ) -> None:
        self._store, self._fold, self._shard, self._epoch = store, fold, shard, epoch
        self._compression, self._unique = compression, unique

    def superseded(self, most: int = PARTS_PER_ENTRY) -> Rewrite:
        """Copy what is live out of every live part (quarantine too) that holds rows of a superseded DID.

        Columns stay as the old part has them.

        Args:
            most: parts to replace, at most; `is_all` says whether there are more.

        Raises:
            StateError: a part is missing or unreadable, or the disk refused; nothing stays staged then.
        """
        with self._discarding() as change:
            for live in list(self._fold.parts.values()):
                dead = self._dead_here(live)
                if not dead:
                    continue
                if len(change.removes) == most:
                    change.is_all = False
                    break
                self._replace(change, [live], ())
        return change

    def without(self, uris: Mapping[str, Sequence[str]]) -> Rewrite:
        """Copy what is live and not one of these records out of every live part that holds one of them.

        Args:
            uris: author (DID) -> AT URIs.

        Raises:
            StateError: as `superseded`.
        """
        wanted = pa.array([uri for some in uris.values() for uri in some], pa.string())
        with self._discarding() as change:
            for live in list(self._fold.parts.values()):
                if self._has(live, wanted):
                    self._replace(change, [live], wanted)
        return change

    def merged(self, group: Sequence[LivePart]) -> Rewrite:
        """Copy what is live in some parts of one record type and one form into a single one, in their order.

        Raises:
            StateError: as `superseded`.
        """
        with self._discarding() as change:
            self._replace(change, group, ())
        return change

    @contextmanager
    def _discarding(self) -> Iterator[Rewrite]:
        change = Rewrite()
        try:
            yield change
        except BaseException:
            for part in change.adds:
                self._store.discard_staged(part.path)
            raise

    def _dead_here(self, live: LivePart) -> set[str]:
        """The DIDs with dead rows in this very part; its authors are read, nothing else."""
        dead = self._fold.dead_in(live)
        if not dead:
            return dead
        found: set[str] = set()
        for batch in part_batches(self._store, live.part.path, ["author"]):
            found.update(pc.unique(batch.column("author")).to_pylist())
        return dead & found

    def _has(self, live: LivePart, uris: Any) -> bool:
        batches = part_batches(self._store, live.part.path, ["uri"])
        return any(pc.any(pc.is_in(batch.column("uri"), uris)).as_py() for batch in batches)

    def _replace(self, change: Rewrite, old: Sequence[LivePart], without: Any) -> None:
        for live in old:
            if problem := part_problem(self._store, live.part):
                # Copied, its damage would get a sha256 of its own, and nobody could find it any more.
                raise StateError(
                    f"{self._store.path(live.part.path)}: {problem}; bring it back from a backup, or let `backfill "
                    "repair` reopen the accounts in it"
                )
        record_type = old[0].part.record_type
        key = part_key(record_type, shard=self._shard, seq=self._fold.seq + 1, epoch=self._epoch, unique=self._unique())
        with open_part(self._store, old[0].part.path) as file:
            schema = file.schema_arrow
        part = self._copy(key, record_type, schema, self._kept(old, without))
        if part is not None:
            change.adds.append(part)
        change.removes.extend(live.part.path for live in old)

    def _kept(self, old: Sequence[LivePart], without: Any) -> Iterator[Any]:
        for live in old:
            dead = self._fold.dead_in(live)
            for batch in part_batches(self._store, live.part.path):
                kept = batch.filter(pc.invert(rows_of(batch, dead))) if dead else batch
                if len(without):
                    kept = kept.filter(pc.invert(pc.is_in(kept.column("uri"), without)))
                if kept.num_rows:
                    yield kept

    def _copy(self, key: str, record_type: str | None, schema: pa.Schema, batches: Iterable[Any]) -> Part | None:
        new: PartFile | None = None
        waiting: list[Any] = []
        try:
            for batch in batches:
                new = new or PartFile(self._store, key, record_type, schema, self._compression)
                waiting.append(batch)
                if sum(one.nbytes for one in waiting) >= ROW_GROUP_BYTES:
                    new.write(waiting)
                    waiting = []
            if new is None:
                return None
            if waiting:
                new.write(waiting)
            return new.finish()
        except BaseException:
            if new is not None:
                new.discard()
            raise
