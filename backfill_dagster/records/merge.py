"""A DID's old rows and its new ones as one run of rows in repo order, a batch at a time.

Which old rows stand is `delta.py`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa


def merged(old: Iterable[Any], new: Any | None) -> Iterator[Any]:
    """Both by URI, ascending; neither has a URI of the other.

    Args:
        old: record batches in the order of their URIs, none of them empty.
        new: one more record batch of the same schema, in the order of its URIs; None: no new rows.

    Yields:
        Record batches.
    """
    uris: list[str] = [] if new is None else new.column("uri").to_pylist()
    done = 0
    for batch in old:
        until = bisect_right(uris, batch.column("uri")[-1].as_py(), lo=done)
        if until == done:
            yield batch
            continue
        both = pa.Table.from_batches([batch, new.slice(done, until - done)])  # type: ignore[union-attr]
        yield from both.sort_by("uri").combine_chunks().to_batches()
        done = until
    if done < len(uris):
        yield new.slice(done)  # type: ignore[union-attr]


def as_seen(batch: Any, *, rev: str | None, fetched_at_us: int) -> Any:
    """Old rows that a newer revision still has, as a fetch of that revision would have given them."""
    for name, value in (("rev", rev), ("fetched_at", fetched_at_us)):
        at = batch.schema.get_field_index(name)
        column = pa.array([value] * batch.num_rows, batch.schema.field(at).type)
        batch = batch.set_column(at, batch.schema.field(at), column)
    return batch
