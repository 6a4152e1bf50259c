"""Rows to Arrow: what all rows of a batch have in common is computed here by columns, not record by record.

The order of a row's values is `rows.py`'s, the schemas are `schema.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from backfill_dagster.atproto.cid import cid_text
from backfill_dagster.records.rows import COMMON_VALUES, QUARANTINE_VALUES, Row
from backfill_dagster.records.schema import (
    QUARANTINE_COLUMNS,
    TIMESTAMP,
    Column,
    Raw,
    columns_for,
    own_columns,
    quarantine_schema,
    schema_for,
)
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.timestamps import rkey_times, synctimestamps


def record_batch(record_type: str, collection: str, rows: Sequence[Row], raw: Raw, selection: Selection) -> Any:
    """Rows of one record type as an Arrow record batch in `schema_for(record_type, raw)`.

    Args:
        record_type: the type.
        collection: the NSID of all these rows.
        rows: `COMMON_VALUES` and the type's own values each; not empty.
        raw: how the whole record is kept.
        selection: whose time range `synctimestamp` looks at.
    """
    columns = list(zip(*rows, strict=True))
    given = dict(zip(COMMON_VALUES, columns, strict=False))
    author, rkey = pa.array(given["author"], pa.string()), pa.array(given["rkey"], pa.string())
    created = pa.array(given["created_us"], TIMESTAMP)
    rkey_time = rkey_times(given["rkey"], rkey)
    instants = pc.coalesce(created, rkey_time)
    names = pa.repeat(collection, len(rows))
    made = {
        "uri": _uris(author, names, rkey),
        "cid": _cids(given["cid"]),
        "author": author,
        "collection": names,
        "rkey": rkey,
        "created_at_ts": created,
        "rkey_ts": rkey_time,
        "synctimestamp": synctimestamps(instants, selection.start_us, selection.end_us),
        "fetched_at": pa.array(given["fetched_us"], TIMESTAMP),
    }
    own = dict(zip((one.name for one in own_columns(record_type)), columns[len(COMMON_VALUES) :], strict=True))
    arrays = [
        made[one.name] if one.name in made else _array(one, own[one.name] if one.name in own else given[one.name])
        for one in columns_for(record_type, raw)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema_for(record_type, raw))


def quarantine_batch(rows: Sequence[Row]) -> Any:
    """Rows of the quarantine (`QUARANTINE_VALUES` each, not empty) as an Arrow record batch."""
    given = dict(zip(QUARANTINE_VALUES, zip(*rows, strict=True), strict=True))
    texts = {name: pa.array(given[name], pa.string()) for name in ("author", "collection", "rkey")}
    made = texts | {
        "uri": _uris(texts["author"], texts["collection"], texts["rkey"]),
        "cid": _cids(given["cid"]),
        "fetched_at": pa.array(given["fetched_us"], TIMESTAMP),
    }
    arrays = [made[one.name] if one.name in made else _array(one, given[one.name]) for one in QUARANTINE_COLUMNS]
    return pa.RecordBatch.from_arrays(arrays, schema=quarantine_schema())


def _uris(author: Any, collection: Any, rkey: Any) -> Any:
    return pc.binary_join_element_wise("at:/", author, collection, rkey, "/")


def _cids(cids: Sequence[bytes]) -> Any:
    return pa.array([cid_text(cid) for cid in cids], pa.string())


def _array(column: Column, values: Sequence[Any]) -> Any:
    if column.is_json:
        # orjson's bytes are UTF-8 already: no decoding, no second check.
        return pa.array(values, pa.binary()).view(pa.string())
    return pa.array(values, column.type)
