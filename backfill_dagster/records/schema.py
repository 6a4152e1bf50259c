"""The columns of every record type: names, Arrow types, what they mean. Nothing here touches a record.

How a record becomes values is in `rows.py` and `values.py`, how values become Arrow in `columns.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import pyarrow as pa

SCHEMA_VERSION = 1
"""Part of the scope: a change of columns makes every DID pending again, in the new form."""

Raw = Literal["json", "cbor", "none"]
"""How the whole record is kept beside the typed columns (`records.raw` of the config)."""

POST, LIKE, REPOST = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost"
FOLLOW, BLOCK = "app.bsky.graph.follow", "app.bsky.graph.block"

SHORT_NAMES = {POST: "post", LIKE: "like", REPOST: "repost", FOLLOW: "follow", BLOCK: "block"}

_COLLECTIONS = {short: nsid for nsid, short in SHORT_NAMES.items()} | {"reply": POST}

TIMESTAMP = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(pa.field("element", pa.string()))

LOW_CARDINALITY = ("author", "collection", "rev", "fetched_at", "reason", "embed_type", "langs.list.element")
"""Parquet column paths that are worth a dictionary; the others get bigger and slower with one."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `required` ones are never null; `is_json` ones hold JSON text that comes as UTF-8 bytes."""

    name: str
    type: Any
    description: str
    required: bool = False
    is_json: bool = False


class ColumnDescription(NamedTuple):
    """One column in words, for the asset catalog."""

    name: str
    type: str
    description: str
    nullable: bool


_COMMON = (
    Column("uri", pa.string(), "AT URI of the record: at://author/collection/rkey", required=True),
    Column("cid", pa.string(), "CID of the record's block, base32", required=True),
    Column("author", pa.string(), "DID of the repo that holds the record", required=True),
    Column("collection", pa.string(), "NSID of the collection", required=True),
    Column("rkey", pa.string(), "record key within the collection", required=True),
    Column("created_at", pa.string(), "createdAt as the client wrote it; null if there is none"),
    Column("created_at_ts", TIMESTAMP, "createdAt as an instant, offset applied; null if unreadable"),
    Column("rkey_ts", TIMESTAMP, "time in the record key; null if that is not a TID"),
    Column(
        "synctimestamp",
        pa.string(),
        "time for the old pipelines, UTC, YYYY-MM-DD-HH:MM:SS: createdAt, or rkey_ts if that is unreadable",
    ),
    Column("rev", pa.string(), "revision of the repo that the record was read from; null for version 2 repos"),
    Column("fetched_at", TIMESTAMP, "when the repo was fetched", required=True),
)

_RECORD = {
    "json": Column("record", pa.string(), "the whole record in AT Protocol JSON ($link, $bytes)", is_json=True),
    "cbor": Column("record", pa.binary(), "the record's own DAG-CBOR block; its SHA-256 is in the cid"),
}

_POST_COLUMNS = (
    Column("text", pa.string(), "the post's text"),
    Column("langs", STRINGS, "languages that the author named (BCP 47)"),
    Column("tags", STRINGS, "hashtags beside the text"),
    Column("labels", pa.string(), "self-labels, JSON object", is_json=True),
    Column("facets", pa.string(), "links, mentions and tags in the text, JSON array", is_json=True),
    Column("embed_type", pa.string(), "$type of the embed"),
    Column("embed", pa.string(), "images, video, external link or quoted record, JSON object", is_json=True),
    Column("reply_parent_uri", pa.string(), "AT URI of the post that this one answers"),
    Column("reply_parent_cid", pa.string(), "CID of that post"),
    Column("reply_root_uri", pa.string(), "AT URI of the thread's first post"),
    Column("reply_root_cid", pa.string(), "CID of the thread's first post"),
)
_SUBJECT_COLUMNS = (
    Column("subject_uri", pa.string(), "AT URI of what is liked or reposted"),
    Column("subject_cid", pa.string(), "CID of what is liked or reposted"),
    Column("via_uri", pa.string(), "AT URI of the repost through which it was seen"),
)
_ACCOUNT_COLUMNS = (Column("subject", pa.string(), "DID of the account that is followed or blocked"),)

_OWN_COLUMNS: dict[str, tuple[Column, ...]] = {
    "post": _POST_COLUMNS,
    "reply": _POST_COLUMNS,
    "like": _SUBJECT_COLUMNS,
    "repost": _SUBJECT_COLUMNS,
    "follow": _ACCOUNT_COLUMNS,
    "block": _ACCOUNT_COLUMNS,
}

QUARANTINE_COLUMNS = (
    Column("uri", pa.string(), "AT URI of the record", required=True),
    Column("cid", pa.string(), "CID of the record's block, base32", required=True),
    Column("author", pa.string(), "DID of the repo that holds the record", required=True),
    Column("collection", pa.string(), "collection as the repo's key has it", required=True),
    Column("rkey", pa.string(), "record key as the repo's key has it", required=True),
    Column("rev", pa.string(), "revision of the repo; null for version 2 repos"),
    Column("reason", pa.string(), "what is wrong with the record", required=True),
    Column("record_json", pa.string(), "the record in AT Protocol JSON; null if JSON can't hold it", is_json=True),
    Column("record_cbor", pa.binary(), "the record's own DAG-CBOR block", required=True),
    Column("fetched_at", TIMESTAMP, "when the repo was fetched", required=True),
)


def record_type_of(collection: str, record: dict[str, Any]) -> str:
    """The record type: `post`, `reply`, `repost`, `like`, `follow`, `block`, else the collection's NSID.

    A post is a reply when its `reply` is an object, whatever that lacks.
    """
    if collection == POST and type(record.get("reply")) is dict:
        return "reply"
    return SHORT_NAMES.get(collection, collection)


def collection_of(record_type: str | None) -> str:
    """The collection that a type's rows come from; empty for the quarantine (None), where each row says its own."""
    if record_type is None:
        return ""
    return _COLLECTIONS.get(record_type, record_type)


def own_columns(record_type: str) -> tuple[Column, ...]:
    """The columns that this type has beyond those of every type."""
    return _OWN_COLUMNS.get(record_type, ())


def columns_for(record_type: str, raw: Raw = "json") -> tuple[Column, ...]:
    """All columns of a record type, in file order."""
    return _COMMON + own_columns(record_type) + ((_RECORD[raw],) if raw != "none" else ())


@cache
def _schema_of(columns: Sequence[Column]) -> pa.Schema:
    return pa.schema(
        pa.field(one.name, one.type, nullable=not one.required, metadata={"description": one.description})
        for one in columns
    )


def schema_for(record_type: str, raw: Raw = "json") -> pa.Schema:
    """Arrow schema of a record type's parts; each field carries its meaning under the metadata key `description`."""
    return _schema_of(columns_for(record_type, raw))


def quarantine_schema() -> pa.Schema:
    """Arrow schema of the quarantine's parts."""
    return _schema_of(QUARANTINE_COLUMNS)


def column_descriptions(record_type: str, raw: Raw = "json") -> list[ColumnDescription]:
    """The columns in words. For a wildcard give its name: it gets what every type has."""
    return [
        ColumnDescription(
            one.name, "list<string>" if one.type == STRINGS else str(one.type), one.description, not one.required
        )
        for one in columns_for(record_type, raw)
    ]
