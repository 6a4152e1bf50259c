"""One generation of the plan as a Parquet file: rows to bytes, file to metadata, Arrow rows back to `PlannedDid`.

Which generation of a DID counts, and how generations follow each other, is `storage`'s business.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.model import Outcome, PlannedDid

METADATA_KEY = b"backfill"

DIGEST_KEY = b"backfill_sha256"
"""In the file's own metadata, not in the schema's: sha256 of the file as it is with zeros in this place."""

_DIGEST = re.compile(DIGEST_KEY + rb".{1,8}?([0-9a-f]{64})", re.DOTALL)

_ZEROS = b"0" * 64

ROW_GROUP_ROWS = 100_000

_COLUMNS = {
    "did": "the DID, or the source's text when it isn't one",
    "shard": "partition key (host and number, as in pds.example~0000), or _unroutable",
    "pds_endpoint": "origin of the PDS, empty when unroutable",
    "handle": "from the DID document, unverified",
    "signing_key": "did:key of the #atproto key, empty when there is none",
    "delisted": "no longer in the source",
    "outcome": "why there is no host; null for DIDs that have one",
    "error_code": "goes with outcome",
    "error_detail": "goes with outcome, in words",
    "columns": "the source's keep_columns, a JSON object of text or null",
}

SCHEMA = pa.schema(
    [
        pa.field(
            name,
            pa.bool_() if name == "delisted" else pa.string(),
            nullable=name == "outcome",
            metadata={"description": text},
        )
        for name, text in _COLUMNS.items()
    ]
)


def generation_bytes(rows: Iterable[PlannedDid], metadata: Mapping[str, Any]) -> bytes:
    """The file of a generation.

    Rows are ordered by shard (the given order stays within one), so that a shard is read from one or two row groups.

    Args:
        rows: what changed; each DID once.
        metadata: JSON values, kept in the schema's metadata.

    Raises:
        ValueError: a DID comes twice.
    """
    ordered = sorted(rows, key=lambda row: row.shard)
    if len({row.did for row in ordered}) < len(ordered):
        raise ValueError("a DID comes twice in one generation of the plan")
    schema = SCHEMA.with_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        remaining = iter(ordered)
        while chunk := list(islice(remaining, ROW_GROUP_ROWS)):
            writer.write_table(_table(chunk, schema), row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata({DIGEST_KEY: _ZEROS})
    data: bytes = sink.getvalue().to_pybytes()
    return _with_digest(data, hashlib.sha256(data).hexdigest().encode())


def _table(rows: Sequence[PlannedDid], schema: pa.Schema) -> pa.Table:
    return pa.table(
        {
            "did": [row.did for row in rows],
            "shard": [row.shard for row in rows],
            "pds_endpoint": [row.pds_endpoint for row in rows],
            "handle": [row.handle for row in rows],
            "signing_key": [row.signing_key for row in rows],
            "delisted": [row.delisted for row in rows],
            "outcome": [None if row.outcome is None else row.outcome.value for row in rows],
            "error_code": [row.error_code for row in rows],
            "error_detail": [row.error_detail for row in rows],
            "columns": [json.dumps(dict(row.columns), ensure_ascii=False) if row.columns else "{}" for row in rows],
        },
        schema=schema,
    )


def read_metadata(source: Any) -> dict[str, Any]:
    """The metadata of a generation's file.

    Args:
        source: the file, opened for random reading.

    Raises:
        ValueError, OSError: the file is damaged or no generation (pyarrow's own errors are of these kinds).
    """
    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow
    if not schema.equals(SCHEMA):
        raise ValueError(f"columns are {', '.join(schema.names)}, wanted {', '.join(SCHEMA.names)}")
    metadata = json.loads((schema.metadata or {}).get(METADATA_KEY, b"null"))
    if (
        not isinstance(metadata, dict)
        or not _is_count(metadata.get("generation"))
        or not _is_count(metadata.get("refresh"))
    ):
        raise ValueError("its metadata doesn't say generation and refresh")
    return metadata


def check_bytes(data: bytes) -> None:
    """Check a generation's file against the sha256 that it carries. Those of the first version carry none.

    Raises:
        ValueError: it is another one.
    """
    place = _digest_place(data)
    if place is None:
        return
    digest = hashlib.sha256(_with_digest(data, _ZEROS)).hexdigest().encode()
    if data[place] != digest:
        raise ValueError("its sha256 is not the one it carries")


def _digest_place(data: bytes) -> slice | None:
    """Where the digest is: behind all that a source or a DID document can have put in."""
    match = _DIGEST.match(data, max(0, data.rfind(DIGEST_KEY)))
    return None if match is None else slice(*match.span(1))


def _with_digest(data: bytes, digest: bytes) -> bytes:
    """The same file with another digest in the place for it, which has to be there."""
    place = _digest_place(data)
    assert place is not None
    return data[: place.start] + digest + data[place.stop :]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def planned_dids(batch: pa.RecordBatch) -> Iterator[PlannedDid]:
    """The rows of a batch that has (at least) the columns of `SCHEMA`.

    Raises:
        ValueError: a value that no generation of ours holds.
    """
    values = [batch.column(name).to_pylist() for name in SCHEMA.names]
    for did, shard, endpoint, handle, key, delisted, outcome, code, detail, columns in zip(*values, strict=True):
        yield PlannedDid(
            did=did,
            shard=shard,
            pds_endpoint=endpoint,
            handle=handle,
            signing_key=key,
            delisted=delisted,
            outcome=None if outcome is None else Outcome(outcome),
            error_code=code,
            error_detail=detail,
            columns={} if columns == "{}" else json.loads(columns),
        )
