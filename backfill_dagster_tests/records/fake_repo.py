"""Repos made of plain Python values, and the shortest way from them to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.atproto.cid import cid_of
from backfill_dagster.atproto.dag_cbor import encode_dag_cbor
from backfill_dagster.atproto.tid import tid_from_micros
from backfill_dagster.records.entry import Part
from backfill_dagster.records.parts import BatchWriter
from backfill_dagster.records.rows import RepoCounts
from backfill_dagster.records.schema import Raw
from backfill_dagster.records.selection import Selection
from backfill_dagster.store.local import LocalStore

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
REV = "3k2akz6v2ei2f"
NOON = 1_704_110_400_000_000
"""2024-01-01T12:00:00Z in microseconds."""
FETCHED_US = 1_767_225_600_000_000
EVERYTHING = Selection(("app.bsky.feed.*", "app.bsky.graph.*", "com.example.*"))


def tid(number: int = 0) -> str:
    """The TID of `number` seconds after NOON."""
    return tid_from_micros(NOON + number * 1_000_000, 7)


class FakeRepo:
    """Keys `collection/rkey` with records (values, or blocks as bytes) in the order of a repo's tree."""

    def __init__(self, records: dict[str, Any], did: str = DID) -> None:
        self.did = did
        self.entries: list[tuple[str, str, bytes]] = []
        self._blocks: dict[bytes, bytes] = {}
        for key in sorted(records):
            block = records[key] if isinstance(records[key], bytes) else encode_dag_cbor(records[key])
            collection, _, rkey = key.partition("/")
            cid = cid_of(block)
            self._blocks[cid] = block
            self.entries.append((collection, rkey, cid))

    def block(self, cid: bytes) -> bytes:
        return self._blocks[cid]


def unique() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"{next(numbers):08x}"


def writer_at(folder: Path, selection: Selection = EVERYTHING, raw: Raw = "json", **changes: Any) -> BatchWriter:
    settings: dict[str, Any] = {"shard": "example.com~0000", "seq": 1, "epoch": 1, "compression": "zstd"}
    settings |= {"unique": unique()} | changes
    return BatchWriter(LocalStore(folder), selection=selection, raw=raw, **settings)


def write(
    folder: Path, repos: Iterable[FakeRepo], selection: Selection = EVERYTHING, raw: Raw = "json", **changes: Any
) -> tuple[list[Part], list[RepoCounts]]:
    """Write one batch of repos; the parts lie in staging."""
    writer = writer_at(folder, selection, raw, **changes)
    counts = [writer.add_repo(repo, fetched_at_us=FETCHED_US, rev=REV) for repo in repos]
    return writer.finish(), counts


def table_of(folder: Path, part: Part) -> pa.Table:
    return pq.ParquetFile(LocalStore(folder).find(part.path)).read()


def tables_of(folder: Path, parts: Iterable[Part]) -> dict[str | None, pa.Table]:
    return {part.record_type: table_of(folder, part) for part in parts}


def rows_of(
    folder: Path, records: dict[str, Any], selection: Selection = EVERYTHING, raw: Raw = "json"
) -> dict[str | None, list[dict[str, Any]]]:
    """The rows that one repo's records become, by record type (None: quarantine)."""
    parts, _ = write(folder, [FakeRepo(records)], selection, raw)
    return {name: table.to_pylist() for name, table in tables_of(folder, parts).items()}


def row_of(folder: Path, collection: str, record: Any, raw: Raw = "json") -> dict[str, Any]:
    """The one row of a record that isn't quarantined."""
    (rows,) = rows_of(folder, {f"{collection}/{tid()}": record}, raw=raw).values()
    (row,) = rows
    assert "reason" not in row
    return row
