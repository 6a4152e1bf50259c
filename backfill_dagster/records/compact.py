"""Which parts of a shard are worth making one: neighbours of one record type and one form, small ones. Pure choice.

Copying them is `rewrite.py`'s, the log entry the worker's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.read import open_part
from backfill_dagster.records.rewrite import PARTS_PER_ENTRY
from backfill_dagster.store.base import ObjectStore

TARGET_BYTES = 128 * 1024 * 1024
"""A compacted part's size, about; parts of half of it and more are left alone."""


def small_groups(store: ObjectStore, fold: Fold, target_bytes: int = TARGET_BYTES) -> Iterator[list[LivePart]]:
    """Groups of two live parts or more that together make one of some `target_bytes`, in the order of the parts.

    Parts differ in form when `records.raw` was changed between them; such are never merged.

    Raises:
        StateError: a part is missing or unreadable.
    """
    alike: dict[tuple[str | None, str], list[LivePart]] = defaultdict(list)
    for live in fold.parts.values():
        if live.part.bytes * 2 < target_bytes:
            with open_part(store, live.part.path) as file:
                form = str(file.schema_arrow.remove_metadata())
            alike[(live.part.record_type, form)].append(live)
    for parts in alike.values():
        yield from _cut(parts, target_bytes)


def _cut(parts: list[LivePart], target_bytes: int) -> Iterator[list[LivePart]]:
    group: list[LivePart] = []
    size = 0
    for live in parts:
        if group and (size + live.part.bytes > target_bytes or len(group) == PARTS_PER_ENTRY):
            if len(group) > 1:
                yield group
            group, size = [], 0
        group.append(live)
        size += live.part.bytes
    if len(group) > 1:
        yield group
