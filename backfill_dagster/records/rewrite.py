"""Superseded rows taken out of live parts: new parts without them, to be put into one log entry.

Which rows are dead is `fold.py`'s, the entry and everything after it (publish, delete) the worker's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.part_file import PartFile, part_key
from backfill_dagster.records.read import open_part, part_batches, rows_of
from backfill_dagster.store.base import ObjectStore

ROW_GROUP_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What the log entry of a rewrite says.

    Attributes:
        adds: new parts, staged.
        removes: paths of the parts that they replace; a part without a live row has no successor.
    """

    adds: list[Part] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)


def rewrite_superseded(
    store: ObjectStore,
    fold: Fold,
    *,
    shard: str,
    epoch: int,
    compression: str,
    unique: Callable[[], str],
) -> Rewrite:
    """Copy what is live out of every live part (quarantine too) that holds rows of a superseded DID.

    The columns stay as the old part has them. The caller appends the entry `fold.seq + 1`, publishes the adds and
    deletes the removed parts; without that the new ones are swept like any dead file.

    Args:
        store: where the parts are.
        fold: the sealed log.
        shard: partition key.
        epoch: the writer's.
        compression: as of `BatchWriter`.
        unique: gives hex digits that are never the same twice.

    Raises:
        StateError: a part is missing or unreadable, or the disk refused; nothing stays staged then.
    """
    change = Rewrite()
    try:
        for live in list(fold.parts.values()):
            dead = _dead_here(store, fold, live)
            if not dead:
                continue
            key = part_key(live.part.record_type, shard=shard, seq=fold.seq + 1, epoch=epoch, unique=unique())
            part = _copy(store, live.part, key, dead, compression)
            if part is not None:
                change.adds.append(part)
            change.removes.append(live.part.path)
    except BaseException:
        for part in change.adds:
            store.discard_staged(part.path)
        raise
    return change


def _dead_here(store: ObjectStore, fold: Fold, live: LivePart) -> set[str]:
    """The DIDs with dead rows in this very part; its authors are read, nothing else."""
    dead = fold.dead_in(live)
    if not dead:
        return dead
    found: set[str] = set()
    for batch in part_batches(store, live.part.path, ["author"]):
        found.update(pc.unique(batch.column("author")).to_pylist())
    return dead & found


def _copy(store: ObjectStore, old: Part, key: str, dead: set[str], compression: str) -> Part | None:
    with open_part(store, old.path) as file:
        schema = file.schema_arrow
    new: PartFile | None = None
    waiting: list[Any] = []
    try:
        for batch in part_batches(store, old.path):
            kept = batch.filter(pc.invert(rows_of(batch, dead)))
            if kept.num_rows == 0:
                continue
            new = new or PartFile(store, key, old.record_type, schema, compression)
            waiting.append(kept)
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
