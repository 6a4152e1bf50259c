"""What is really in a shard's live parts: which of them are whole, and how many live rows of whom they hold.

Counted in the files themselves. What to make of a difference is `report.verify`'s and `worker.repair`'s.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import pyarrow.compute as pc

from backfill_dagster.errors import StateError
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.read import part_batches
from backfill_dagster.store.base import ObjectStore

_HASH_CHUNK_BYTES = 4 * 1024 * 1024


@dataclass
class RowsFound:
    """Live rows of one DID, as they are in the parts.

    Attributes:
        by_type: record type -> rows.
        quarantined: rows of the quarantine.
    """

    by_type: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0


def part_problem(store: ObjectStore, part: Part) -> str | None:
    """What is wrong with a live part: missing, or not byte for byte what the log says; None when it is good.

    Raises:
        StateError: the disk refuses to say.
    """
    if not store.exists(part.path):
        return "the log says that this part is live, and it is not there"
    digest, size = hashlib.sha256(), 0
    try:
        with store.open_input(part.path) as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise store.read_problem(error, part.path) or StateError(
            f"can't read {store.path(part.path)}: {' '.join(str(error).split())}; see why, then start again"
        ) from error
    if (digest.hexdigest(), size) == (part.sha256, part.bytes):
        return None
    return f"{size} bytes with sha256 {digest.hexdigest()[:12]}…, the log says {part.bytes} with {part.sha256[:12]}…"


def lost_parts(store: ObjectStore, fold: Fold) -> dict[str, str]:
    """Path -> what is wrong, of every live part whose rows can't be trusted. Raises StateError as `part_problem`.

    What seems lost is read once more: on the word of this a part is dropped, and a bit can flip on the way as well.
    """
    found = {}
    for path, live in fold.parts.items():
        problem = part_problem(store, live.part) and part_problem(store, live.part)
        if problem is not None:
            found[path] = problem
    return found


def rows_found(store: ObjectStore, fold: Fold, lost: Collection[str] = ()) -> dict[str, RowsFound]:
    """DID -> its live rows, in all parts but the lost ones.

    Raises:
        StateError: a part that is not among the lost ones can't be read.
    """
    found: dict[str, RowsFound] = defaultdict(RowsFound)
    for path, live in fold.parts.items():
        if path in lost:
            continue
        dead = fold.dead_in(live)
        for batch in part_batches(store, path, ["author"]):
            for one in pc.value_counts(batch.column("author")):
                did, count = one["values"].as_py(), one["counts"].as_py()
                if did in dead:
                    continue
                if live.part.record_type is None:
                    found[did].quarantined += count
                else:
                    found[did].by_type[live.part.record_type] += count
    return found
