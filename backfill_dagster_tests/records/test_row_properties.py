"""Any records, good or odd, against a plain slow reference that looks at the values, never at a block."""

from __future__ import annotations

import base64
import json
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.atproto.cid import cid_of, cid_text
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor
from backfill_dagster.atproto.datetime import parse_datetime
from backfill_dagster.atproto.tid import is_tid, micros_of_tid
from backfill_dagster.records import parts as parts_module
from backfill_dagster.records.rows import RepoCounts
from backfill_dagster.records.schema import Raw, columns_for
from backfill_dagster.records.selection import RecordFilter, Selection
from backfill_dagster.records.timestamps import YEAR_1_MICROS
from backfill_dagster_tests.records.fake_repo import (
    DID,
    FETCHED_US,
    NOON,
    REV,
    FakeRepo,
    table_of,
    tables_of,
    tid,
    write,
)

SHORT = {
    "app.bsky.feed.post": "post",
    "app.bsky.feed.like": "like",
    "app.bsky.feed.repost": "repost",
    "app.bsky.graph.follow": "follow",
    "app.bsky.graph.block": "block",
}
JSON_COLUMNS = ("labels", "facets", "embed", "record")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
URIS = ["at://did:plc:b/app.bsky.feed.post/1", "at://did:plc:b/app.bsky.feed.post/2"]


class BrokenError(Exception):
    """The reference says: quarantine."""


def to_json(value: Any) -> Any:
    if isinstance(value, Link):
        return {"$link": cid_text(value.cid)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode().rstrip("=")}
    if isinstance(value, list):
        return [to_json(one) for one in value]
    if isinstance(value, dict):
        if "$link" in value or "$bytes" in value:
            raise BrokenError
        return {key: to_json(one) for key, one in value.items()}
    if isinstance(value, int) and value < -(2**63):
        raise BrokenError
    return value


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def inside(value: Any, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def must_be_text(value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise BrokenError


def own_columns(collection: str, record: dict[str, Any]) -> dict[str, Any]:
    if collection in SHORT:
        must_be_text(record.get("createdAt"))
    if SHORT.get(collection) == "post":
        must_be_text(record.get("text"))
        lists = {
            name: record.get(name)
            if isinstance(record.get(name), list) and all(isinstance(one, str) for one in record[name])
            else None
            for name in ("langs", "tags")
        }
        kinds = {"labels": dict, "facets": list, "embed": dict}
        documents = {
            name: to_json(record[name]) if isinstance(record.get(name), kind) else None for name, kind in kinds.items()
        }
        replies = {
            f"reply_{end}_{name}": text_or_none(inside(record, "reply", end, name))
            for end in ("parent", "root")
            for name in ("uri", "cid")
        }
        embed_type = text_or_none(inside(record, "embed", "$type"))
        return {"text": record.get("text"), "embed_type": embed_type} | lists | documents | replies
    if SHORT.get(collection) in ("like", "repost"):
        subject = record.get("subject")
        if subject is not None and not isinstance(subject, dict):
            raise BrokenError
        must_be_text(inside(subject, "uri"))
        must_be_text(inside(subject, "cid"))
        return {
            "subject_uri": inside(subject, "uri"),
            "subject_cid": inside(subject, "cid"),
            "via_uri": text_or_none(inside(record, "via", "uri")),
        }
    if SHORT.get(collection) in ("follow", "block"):
        must_be_text(record.get("subject"))
        return {"subject": record.get("subject")}
    return {}


def matched(record: Any, one: RecordFilter, uri: str) -> str | None:
    if one.match == "uri":
        return uri
    if one.match == "subject_uri":
        subject = inside(record, "subject")
        return text_or_none(subject.get("uri") if isinstance(subject, dict) else subject)
    return text_or_none(inside(record, "reply", one.match.removesuffix("_uri"), "uri"))


def moment(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + timedelta(microseconds=micros)


def reference(
    key: str, value: Any, selection: Selection, raw: Raw, counts: RepoCounts
) -> tuple[str | None, dict[str, Any]] | None:
    """Record type (None: quarantine) and row; None for what is left out."""
    collection, _, rkey = key.partition("/")
    counts.seen_by_collection[collection] = counts.seen_by_collection.get(collection, 0) + 1
    if not selection.wants_collection(collection):
        return None
    uri, is_object = f"at://{DID}/{key}", isinstance(value, dict)
    record: dict[str, Any] = value if is_object else {}
    if any(matched(record, one, uri) not in one.uris for one in selection.filters if one.record_type == collection):
        return None
    created = parse_datetime(record.get("createdAt"))
    created = None if created is not None and created < YEAR_1_MICROS else created
    key_time = micros_of_tid(rkey) if is_tid(rkey) else None
    instant = key_time if created is None else created
    if selection.start_us is not None or selection.end_us is not None:
        if instant is None:
            counts.undated += 1
            return None
        if not (selection.start_us or -(10**20)) <= instant <= (selection.end_us or 10**20):
            return None
    block = value if isinstance(value, bytes) else encode_dag_cbor(value)
    row: dict[str, Any] = {"uri": uri, "cid": cid_text(cid_of(block)), "author": DID, "collection": collection}
    row |= {"rkey": rkey, "rev": REV, "fetched_at": moment(FETCHED_US)}
    try:
        if not is_object:
            raise BrokenError
        in_json = to_json(value) if raw == "json" or collection == "app.bsky.feed.post" else None
        row |= own_columns(collection, value)
    except BrokenError:
        counts.quarantined += 1
        return None, row | {"record_cbor": block}
    row |= {
        "created_at": text_or_none(record.get("createdAt")),
        "created_at_ts": moment(created),
        "rkey_ts": moment(key_time),
        "synctimestamp": None
        if instant is None
        else moment(instant // 10**6 * 10**6).isoformat()[:19].replace("T", "-"),  # type: ignore[union-attr]
    }
    if raw != "none":
        row["record"] = in_json if raw == "json" else block
    name = SHORT.get(collection, collection)
    if name == "post" and isinstance(record.get("reply"), dict):
        name = "reply"
    counts.records_by_type[name] = counts.records_by_type.get(name, 0) + 1
    return name, row


def odd_values() -> st.SearchStrategy[Any]:
    plain = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**64), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False).filter(lambda one: str(one) != "-0.0"),
        st.text(max_size=8),
        st.binary(max_size=8),
        st.binary(max_size=4).map(lambda data: Link(cid_of(data))),
    )
    keys = st.one_of(st.text(max_size=4), st.sampled_from(["$type", "uri", "cid", "parent", "root", "$link", "$bytes"]))
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


def records() -> st.SearchStrategy[Any]:
    odd = odd_values()
    created_at = st.one_of(
        st.sampled_from(
            ["2024-01-01T12:00:00.000Z", "2024-01-01T14:00:00.5+02:00", "2024-01-01T12:00:00-00:00", "soon"]
        ),
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda one: one.isoformat() + "Z"),
        odd,
    )
    ref = st.one_of(
        st.fixed_dictionaries({}, optional={"uri": st.sampled_from(URIS) | odd, "cid": st.just("bafyx") | odd}), odd
    )
    fields = {
        "createdAt": created_at,
        "text": st.text(max_size=20) | odd,
        "subject": ref | st.just("did:plc:b"),
        "via": ref,
        "reply": st.fixed_dictionaries({}, optional={"parent": ref, "root": ref}) | odd,
        "langs": st.lists(st.sampled_from(["en", "de"]), max_size=2) | odd,
        "tags": st.lists(st.text(max_size=3), max_size=2) | odd,
        "labels": odd,
        "facets": st.lists(odd, max_size=2) | odd,
        "embed": st.dictionaries(st.sampled_from(["$type", "x"]), odd, max_size=2) | odd,
    }
    return st.one_of(st.fixed_dictionaries({}, optional=fields), odd, st.binary(max_size=6).filter(is_no_cbor))


def is_no_cbor(data: bytes) -> bool:
    """Blocks that are no DAG-CBOR: the major type 7 with a value that is reserved, then anything."""
    return data.startswith(b"\xff") or data == b""


def repos() -> st.SearchStrategy[dict[str, Any]]:
    rkeys = st.one_of(st.integers(-5, 5).map(tid), st.sampled_from(["self", "a", "b:c", "3k2akz6v2ei2z"]))
    collections = st.sampled_from([*SHORT, "com.example.thing", "com.example.1odd", "org.unwanted.thing"])
    return st.dictionaries(st.tuples(collections, rkeys).map("/".join), records(), max_size=12)


def selections() -> st.SearchStrategy[Selection]:
    ends = st.one_of(st.none(), st.integers(-6, 6).map(lambda seconds: NOON + seconds * 1_000_000))
    filters = st.builds(
        RecordFilter,
        st.sampled_from(["app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow", "com.example.thing"]),
        st.sampled_from(["uri", "subject_uri", "parent_uri", "root_uri"]),
        st.frozensets(st.sampled_from([*URIS, "did:plc:b", f"at://{DID}/app.bsky.feed.post/a"]), min_size=1),
    )
    wanted = st.sampled_from([("app.bsky.feed.*", "app.bsky.graph.*", "com.example.*"), ("app.bsky.feed.post",)])
    return st.builds(Selection, wanted, ends, ends, st.lists(filters, max_size=2).map(tuple))


def comparable(row: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """A read row with its JSON parsed, without the quarantine's wording."""
    kept = {name: row[name] for name in columns if name not in ("reason", "record_json")}
    return {
        name: json.loads(value) if name in JSON_COLUMNS and isinstance(value, str) else value
        for name, value in kept.items()
    }


def as_fake(value: Any) -> Any:
    """Top-level bytes of the generated repos are either blocks that are no CBOR, or records that are byte strings."""
    return value if isinstance(value, bytes) and is_no_cbor(value) else encode_dag_cbor(value)


@settings(max_examples=300, deadline=None)
@given(repos(), selections(), st.sampled_from(["json", "cbor", "none"]), st.sampled_from([1, 2000, 10**9]))
def test_rows_are_those_of_the_reference(
    found: dict[str, Any], selection: Selection, raw: Raw, flush_bytes: int
) -> None:
    expected_counts, expected = RepoCounts(), dict[str | None, list[dict[str, Any]]]()
    blocks = {key: as_fake(value) for key, value in found.items()}
    for key in sorted(found):
        value = found[key]
        one = reference(key, blocks[key] if isinstance(value, bytes) else value, selection, raw, expected_counts)
        if one is not None and not (one[0] is not None and "1odd" in key):
            expected.setdefault(one[0], []).append(one[1])
        elif one is not None:
            name, row = one
            assert name is not None
            del expected_counts.records_by_type[name]
            expected_counts.quarantined += 1
            kept = {k: row[k] for k in ("uri", "cid", "author", "collection", "rkey", "rev", "fetched_at")}
            expected.setdefault(None, []).append(kept | {"record_cbor": blocks[key]})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "FLUSH_BYTES", flush_bytes)
        parts, (counts,) = write(Path(folder), [FakeRepo(blocks)], selection, raw)
        tables = tables_of(Path(folder), parts)
        assert counts == expected_counts
        assert {name: table.num_rows for name, table in tables.items()} == {k: len(v) for k, v in expected.items()}
        for name, table in tables.items():
            rows = [comparable(row, table.column_names) for row in table.to_pylist()]
            assert rows == expected[name]
            if name is not None:
                assert table.column_names == [column.name for column in columns_for(name, raw)]


@settings(max_examples=100, deadline=None)
@given(repos())
def test_a_row_is_the_same_alone_as_among_its_neighbours(found: dict[str, Any]) -> None:
    selection = Selection(("app.bsky.feed.*", "app.bsky.graph.*", "com.example.*"))
    blocks = {key: as_fake(value) for key, value in found.items()}
    together, alone = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for key in blocks:
            parts, _ = write(Path(folder) / key, [FakeRepo({key: blocks[key]})], selection)
            alone.update(f"{part.record_type} {table_of(Path(folder) / key, part).to_pylist()[0]}" for part in parts)
        parts, _ = write(Path(folder) / "all", [FakeRepo(blocks)], selection)
        for part in parts:
            rows = table_of(Path(folder) / "all", part).to_pylist()
            together.update(f"{part.record_type} {row}" for row in rows)
    assert together == alone


@settings(max_examples=50, deadline=None)
@given(repos())
def test_cbor_rows_can_be_checked_against_their_cid(found: dict[str, Any]) -> None:
    selection = Selection(("app.bsky.feed.*", "app.bsky.graph.*", "com.example.*"))
    with tempfile.TemporaryDirectory() as folder:
        parts, _ = write(Path(folder), [FakeRepo({key: as_fake(one) for key, one in found.items()})], selection, "cbor")
        for part in parts:
            for row in table_of(Path(folder), part).to_pylist():
                block = row["record_cbor"] if part.record_type is None else row["record"]
                assert cid_text(cid_of(block)) == row["cid"]
