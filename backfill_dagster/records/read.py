"""Live rows out of the parts: what the log says is live, less the rows that it says are dead.

Reading only; `rewrite.py` takes the dead rows out for good, `fold.py` says which they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_dagster.errors import StateError
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.store.base import ObjectStore

READ_ROWS = 16_384


def live_record_types(fold: Fold) -> list[str]:
    """The record types that have live parts, by name; the quarantine is none."""
    return sorted({live.part.record_type for live in fold.parts.values() if live.part.record_type is not None})


def live_parts(fold: Fold, record_type: str | None) -> list[LivePart]:
    """The live parts of a record type (None: of the quarantine), oldest first."""
    return [live for live in fold.parts.values() if live.part.record_type == record_type]


def live_batches(
    store: ObjectStore, fold: Fold, record_type: str | None, columns: Sequence[str] | None = None
) -> Iterator[Any]:
    """The live rows of a record type, some 16,000 at a time, in the order of the parts.

    Args:
        store: where the parts are.
        fold: the shard's log.
        record_type: the type; None: the quarantine.
        columns: which columns; None: all that a part has (parts differ in `record` when `records.raw` was changed).

    Yields:
        Arrow record batches, none of them empty.

    Raises:
        ObjectMissingError: a part has vanished. A rewrite may have replaced it: read the log again and start over once.
        StateError: a part can't be read.
    """
    for live in live_parts(fold, record_type):
        dead = fold.dead_in(live)
        for batch in part_batches(store, live.part.path, columns, needs_author=bool(dead)):
            kept = batch.filter(pc.invert(rows_of(batch, dead))) if dead else batch
            if kept.num_rows:
                yield kept if columns is None else kept.select(list(columns))


def live_rows(store: ObjectStore, fold: Fold, record_type: str | None, columns: Sequence[str] | None = None) -> Any:
    """`live_batches` as one Arrow table; without any rows it has no columns.

    Parts with and without `record` give nulls where it lacks; JSON and CBOR side by side become binary.
    """
    tables = [pa.Table.from_batches([one]) for one in live_batches(store, fold, record_type, columns)]
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def live_counts(store: ObjectStore, fold: Fold, record_type: str | None) -> Counter[str]:
    """Live rows by author, counted in the files themselves (not taken from the log)."""
    counts: Counter[str] = Counter()
    for batch in live_batches(store, fold, record_type, ["author"]):
        for one in pc.value_counts(batch.column("author")):
            counts[one["values"].as_py()] += one["counts"].as_py()
    return counts


def rows_of(batch: Any, dids: set[str]) -> Any:
    """Which rows of a batch are of these DIDs: Arrow array of booleans."""
    return pc.is_in(batch.column("author"), pa.array(sorted(dids), pa.string()))


def part_batches(
    store: ObjectStore, path: str, columns: Sequence[str] | None = None, *, needs_author: bool = False
) -> Iterator[Any]:
    """All rows of a part, dead ones too, as record batches of some 16,000 rows.

    Args:
        store: where it is, published or staged.
        path: its key.
        columns: which columns; None: all.
        needs_author: whether `author` is read even if it isn't among them.
    """
    with open_part(store, path) as part:
        wanted = None if columns is None else list(dict.fromkeys([*columns, *(["author"] if needs_author else [])]))
        try:
            yield from part.iter_batches(batch_size=READ_ROWS, columns=wanted)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(store, path, error) from error


@contextmanager
def open_part(store: ObjectStore, path: str) -> Iterator[pq.ParquetFile]:
    """Open a part where it lies now, for the block.

    Raises:
        ObjectMissingError: it is neither published nor staged.
        StateError: it is no Parquet file, or the store refuses.
    """
    with ExitStack() as stack:
        try:
            source = stack.enter_context(store.open_input(path))
            # Read ahead: a column chunk at a time would be a request at a time where the part is on S3.
            file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(store, path, error) from error
        yield stack.enter_context(file)


def unreadable(store: ObjectStore, path: str, error: Exception) -> StateError:
    """The one line for a part that can't be read: for want of the store, or because it is damaged."""
    if (problem := store.read_problem(error, path)) is not None:
        return problem
    line = " ".join(str(error).split())
    return StateError(
        f"can't read {store.path(path)}: {line}; bring it back from a backup of the state folder, or let `backfill "
        "repair` reopen the accounts in it"
    )
