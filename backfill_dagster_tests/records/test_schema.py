"""The columns, exactly as documented, with their meaning in the file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from backfill_dagster.records.schema import (
    SCHEMA_VERSION,
    Raw,
    column_descriptions,
    quarantine_schema,
    record_type_of,
    schema_for,
)
from backfill_dagster_tests.records.fake_repo import FakeRepo, table_of, tid, write

COMMON = ["uri", "cid", "author", "collection", "rkey", "created_at", "created_at_ts", "rkey_ts", "synctimestamp"]
COMMON += ["rev", "fetched_at"]
POST = ["text", "langs", "tags", "labels", "facets", "embed_type", "embed"]
POST += ["reply_parent_uri", "reply_parent_cid", "reply_root_uri", "reply_root_cid"]
SUBJECT = ["subject_uri", "subject_cid", "via_uri"]


@pytest.mark.parametrize(
    ("record_type", "own"),
    [
        ("post", POST),
        ("reply", POST),
        ("like", SUBJECT),
        ("repost", SUBJECT),
        ("follow", ["subject"]),
        ("block", ["subject"]),
        ("com.example.thing", []),
    ],
)
def test_columns_by_record_type(record_type: str, own: list[str]) -> None:
    assert schema_for(record_type, "json").names == [*COMMON, *own, "record"]
    assert schema_for(record_type, "none").names == [*COMMON, *own]


def test_types() -> None:
    schema = schema_for("post", "json")
    moment = pa.timestamp("us", tz="UTC")
    assert [schema.field(name).type for name in ("created_at_ts", "rkey_ts", "fetched_at")] == [moment] * 3
    assert [schema.field(name).type.value_type for name in ("langs", "tags")] == [pa.string()] * 2
    rest = set(schema.names) - {"created_at_ts", "rkey_ts", "fetched_at", "langs", "tags"}
    assert {str(schema.field(name).type) for name in rest} == {"string"}
    assert schema_for("post", "cbor").field("record").type == pa.binary()
    assert "record_type" not in schema.names


def test_what_identifies_a_record_is_never_null() -> None:
    required = [field.name for field in schema_for("like", "json") if not field.nullable]
    assert required == ["uri", "cid", "author", "collection", "rkey", "fetched_at"]


@pytest.mark.parametrize("raw", ["json", "cbor"])
def test_every_column_says_what_it_is_in_the_file_too(tmp_path: Path, raw: Raw) -> None:
    parts, _ = write(tmp_path, [FakeRepo({f"app.bsky.feed.post/{tid()}": {"text": "x"}})], raw=raw)
    read = table_of(tmp_path, parts[0]).schema
    assert read.equals(schema_for("post", raw), check_metadata=False)
    descriptions = {one.name: one.description for one in column_descriptions("post", raw)}
    assert {field.name: field.metadata[b"description"].decode() for field in read} == descriptions
    assert all(descriptions.values())


def test_descriptions_for_the_catalog() -> None:
    descriptions = {one.name: one for one in column_descriptions("post")}
    assert list(descriptions) == schema_for("post").names
    assert descriptions["langs"].type == "list<string>"
    assert descriptions["created_at_ts"].type == "timestamp[us, tz=UTC]"
    assert descriptions["text"].nullable
    assert not descriptions["uri"].nullable
    assert [one.name for one in column_descriptions("app.bsky.graph.*", "none")] == COMMON


def test_the_quarantine_keeps_all_that_is_known() -> None:
    assert quarantine_schema().names == [
        *("uri", "cid", "author", "collection", "rkey", "rev", "reason", "record_json", "record_cbor", "fetched_at")
    ]
    assert quarantine_schema().field("record_cbor").type == pa.binary()


@pytest.mark.parametrize(
    ("collection", "record", "record_type"),
    [
        ("app.bsky.feed.post", {}, "post"),
        ("app.bsky.feed.post", {"reply": {}}, "reply"),
        ("app.bsky.feed.post", {"reply": None}, "post"),
        ("app.bsky.feed.post", {"reply": "at://x"}, "post"),
        ("app.bsky.feed.like", {"reply": {}}, "like"),
        ("app.bsky.feed.repost", {}, "repost"),
        ("app.bsky.graph.follow", {}, "follow"),
        ("app.bsky.graph.block", {}, "block"),
        ("app.bsky.actor.profile", {}, "app.bsky.actor.profile"),
    ],
)
def test_record_types(collection: str, record: dict[str, object], record_type: str) -> None:
    assert record_type_of(collection, record) == record_type


def test_the_schema_version_is_part_of_the_contract() -> None:
    assert SCHEMA_VERSION == 1
