"""One record at a time: every column, every odd form, what is wanted, what is set aside."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.atproto.cid import cid_of, cid_text
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor
from backfill_dagster.records.rows import COLLECTION_MAX_BYTES, COLLECTIONS_MAX
from backfill_dagster.records.schema import Raw
from backfill_dagster.records.selection import Match, RecordFilter, Selection
from backfill_dagster_tests.records.fake_repo import (
    DID,
    EVERYTHING,
    FETCHED_US,
    NOON,
    REV,
    FakeRepo,
    row_of,
    rows_of,
    tables_of,
    tid,
    write,
)

POST, LIKE, REPOST = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost"
FOLLOW, BLOCK = "app.bsky.graph.follow", "app.bsky.graph.block"
THING = "com.example.thing"
REF = {"uri": "at://did:plc:b/app.bsky.feed.post/1", "cid": "bafyone"}
ROOT = {"uri": "at://did:plc:c/app.bsky.feed.post/2", "cid": "bafytwo"}
BLOB = Link(cid_of(b"blob"))
AT_NOON = "2024-01-01T12:00:00.000Z"


def moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1e6, UTC)


def test_the_columns_of_every_type(tmp_path: Path) -> None:
    record = {"createdAt": "2024-01-01T14:00:00.250+02:00", "n": 1}
    row = row_of(tmp_path, THING, record)
    assert row == {
        "uri": f"at://{DID}/{THING}/{tid()}",
        "cid": cid_text(cid_of(encode_dag_cbor(record))),
        "author": DID,
        "collection": THING,
        "rkey": tid(),
        "created_at": "2024-01-01T14:00:00.250+02:00",
        "created_at_ts": moment(NOON + 250_000),
        "rkey_ts": moment(NOON),
        "synctimestamp": "2024-01-01-12:00:00",
        "rev": REV,
        "fetched_at": moment(FETCHED_US),
        "record": '{"n":1,"createdAt":"2024-01-01T14:00:00.250+02:00"}',
    }


@pytest.mark.parametrize(
    ("created_at", "written", "sync"),
    [
        ("yesterday", "yesterday", "2024-01-01-12:00:00"),
        ("2024-01-01T12:00:00", "2024-01-01T12:00:00", "2024-01-01-12:00:00"),
        (5, None, "2024-01-01-12:00:00"),
        (None, None, "2024-01-01-12:00:00"),
    ],
)
def test_an_unreadable_created_at_is_kept_as_written(
    tmp_path: Path, created_at: object, written: str | None, sync: str
) -> None:
    row = row_of(tmp_path, THING, {"createdAt": created_at})
    assert (row["created_at"], row["created_at_ts"], row["synctimestamp"]) == (written, None, sync)


def test_a_key_that_is_no_tid_has_no_time(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {f"{THING}/self": {}, f"{THING}/{tid()}": {}})[THING]
    assert {row["rkey"]: row["rkey_ts"] for row in rows} == {tid(): moment(NOON), "self": None}
    assert {row["rkey"]: row["synctimestamp"] for row in rows} == {tid(): "2024-01-01-12:00:00", "self": None}


def test_a_post_with_everything(tmp_path: Path) -> None:
    embed = {"$type": "app.bsky.embed.images", "images": [{"alt": "", "image": {"ref": BLOB, "size": 1}}]}
    facets = [{"index": {"byteStart": 0, "byteEnd": 1}, "features": []}]
    labels = {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "spoiler"}]}
    record = {"text": "häi", "langs": ["de", "en"], "tags": [], "labels": labels, "facets": facets, "embed": embed}
    row = row_of(tmp_path, POST, record | {"createdAt": AT_NOON})
    assert (row["text"], row["langs"], row["tags"]) == ("häi", ["de", "en"], [])
    assert (json.loads(row["labels"]), json.loads(row["facets"])) == (labels, facets)
    assert row["embed_type"] == "app.bsky.embed.images"
    assert json.loads(row["embed"])["images"][0]["image"]["ref"] == {"$link": cid_text(BLOB.cid)}
    assert json.loads(row["record"])["embed"] == json.loads(row["embed"])
    assert row["reply_root_uri"] is None


@pytest.mark.parametrize("raw", ["json", "cbor", "none"])
def test_embeds_are_exact_however_the_record_is_kept(tmp_path: Path, raw: Raw) -> None:
    row = row_of(tmp_path, POST, {"text": "", "embed": {"ref": BLOB, "b": b"abc"}}, raw)
    assert json.loads(row["embed"]) == {"ref": {"$link": cid_text(BLOB.cid)}, "b": {"$bytes": "YWJj"}}
    assert row["embed_type"] is None


ODD_REPLIES: list[tuple[Any, tuple[str | None, ...]]] = [
    ({"parent": REF, "root": ROOT}, (REF["uri"], REF["cid"], ROOT["uri"], ROOT["cid"])),
    ({"parent": REF}, (REF["uri"], REF["cid"], None, None)),
    ({"root": ROOT}, (None, None, ROOT["uri"], ROOT["cid"])),
    ({"parent": "x", "root": None}, (None,) * 4),
    ({"parent": {"uri": 5, "cid": "c"}, "root": {}}, (None, "c", None, None)),
    ({"parent": BLOB, "root": b"x"}, (None,) * 4),
    ({}, (None,) * 4),
]


@pytest.mark.parametrize(("reply", "expected"), ODD_REPLIES)
def test_replies_however_odd_are_rows_with_nulls(
    tmp_path: Path, reply: object, expected: tuple[str | None, ...]
) -> None:
    (row,) = rows_of(tmp_path, {f"{POST}/{tid()}": {"text": "x", "reply": reply}})["reply"]
    names = ("reply_parent_uri", "reply_parent_cid", "reply_root_uri", "reply_root_cid")
    assert tuple(row[name] for name in names) == expected


@pytest.mark.parametrize("reply", [None, "at://x", 5, [], b"x", BLOB])
def test_a_reply_that_is_no_object_makes_no_reply(tmp_path: Path, reply: object) -> None:
    assert list(rows_of(tmp_path, {f"{POST}/{tid()}": {"text": "x", "reply": reply}})) == ["post"]


@pytest.mark.parametrize("odd", [None, 5, "en", {"a": 1}, ["en", 5], [b"x"], b"x", BLOB, True, [[]]])
def test_odd_lists_of_strings_are_null(tmp_path: Path, odd: object) -> None:
    row = row_of(tmp_path, POST, {"text": "x", "langs": odd, "tags": odd})
    assert (row["langs"], row["tags"]) == (None, None)


@pytest.mark.parametrize("odd", [None, 5, "x", b"x", BLOB, True, 1.5])
def test_odd_objects_and_arrays_are_null(tmp_path: Path, odd: object) -> None:
    row = row_of(tmp_path, POST, {"text": "x", "labels": odd, "facets": odd, "embed": odd})
    assert (row["labels"], row["facets"], row["embed"], row["embed_type"]) == (None,) * 4


def test_an_array_is_no_object_and_an_object_no_array(tmp_path: Path) -> None:
    row = row_of(tmp_path, POST, {"labels": [], "facets": {}, "embed": [1]})
    assert (row["labels"], row["facets"], row["embed"]) == (None, None, None)


def test_an_embed_type_that_is_no_string_is_null(tmp_path: Path) -> None:
    row = row_of(tmp_path, POST, {"embed": {"$type": 5}})
    assert (row["embed"], row["embed_type"]) == ('{"$type":5}', None)


@pytest.mark.parametrize("collection", [LIKE, REPOST])
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"subject": REF}, (REF["uri"], REF["cid"], None)),
        ({"subject": REF, "via": ROOT}, (REF["uri"], REF["cid"], ROOT["uri"])),
        ({"subject": {"uri": "x"}, "via": "odd"}, ("x", None, None)),
        ({"subject": {"cid": "y"}, "via": {"uri": 5}}, (None, "y", None)),
        ({"subject": {"uri": None}}, (None, None, None)),
        ({"subject": None, "via": ROOT}, (None, None, ROOT["uri"])),
        ({}, (None, None, None)),
    ],
)
def test_likes_and_reposts(tmp_path: Path, collection: str, record: Any, expected: tuple[str | None, ...]) -> None:
    row = row_of(tmp_path, collection, record)
    assert (row["subject_uri"], row["subject_cid"], row["via_uri"]) == expected


@pytest.mark.parametrize("collection", [FOLLOW, BLOCK])
@pytest.mark.parametrize("subject", ["did:plc:b", "not a DID", "", None])
def test_follows_and_blocks(tmp_path: Path, collection: str, subject: str | None) -> None:
    assert row_of(tmp_path, collection, {"subject": subject})["subject"] == subject
    assert list(rows_of(tmp_path / "again", {f"{collection}/{tid()}": {}})) == [collection.rsplit(".", 1)[1]]


WRONG: list[tuple[str, Any, str]] = [
    (POST, {"text": 5}, "text is not a string"),
    (POST, {"text": b"x"}, "text is not a string"),
    (POST, {"text": ["x"], "reply": {}}, "text is not a string"),
    (POST, {"createdAt": 5}, "createdAt is not a string"),
    (LIKE, {"createdAt": {}, "subject": REF}, "createdAt is not a string"),
    (LIKE, {"subject": "at://x"}, "subject is not an object"),
    (LIKE, {"subject": BLOB}, "subject is not an object"),
    (LIKE, {"subject": b"x"}, "subject is not an object"),
    (REPOST, {"subject": {"uri": 5}}, "subject.uri or subject.cid is not a string"),
    (REPOST, {"subject": {"uri": "x", "cid": BLOB}}, "subject.uri or subject.cid is not a string"),
    (FOLLOW, {"subject": {"did": "did:plc:b"}}, "subject is not a string"),
    (BLOCK, {"subject": 5}, "subject is not a string"),
    (THING, [1], "the record is not an object"),
    (THING, "text", "the record is not an object"),
    (THING, None, "the record is not an object"),
    (THING, BLOB, "the record is not an object"),
    (THING, {"a": {"$link": "x"}}, "a key is $link or $bytes, which AT Protocol JSON keeps for links and bytes"),
    (THING, {"a": -(2**64)}, "JSON can't hold the record: Integer exceeds 64-bit range"),
]


@pytest.mark.parametrize(("collection", "record", "reason"), WRONG)
def test_a_broken_contract_goes_to_quarantine_and_the_neighbours_stay(
    tmp_path: Path, collection: str, record: Any, reason: str
) -> None:
    good = {f"{collection}/{tid(-5)}": {}, f"{collection}/{tid(5)}": {}}
    alone = rows_of(tmp_path / "alone", good)
    together = rows_of(tmp_path / "together", good | {f"{collection}/{tid()}": record})
    (row,) = together.pop(None)
    assert together == alone
    block = encode_dag_cbor(record)
    assert (row["reason"], row["record_cbor"]) == (reason, block)
    assert row["uri"] == f"at://{DID}/{collection}/{tid()}"
    assert (row["cid"], row["author"], row["collection"]) == (cid_text(cid_of(block)), DID, collection)
    assert (row["rkey"], row["rev"], row["fetched_at"]) == (tid(), REV, moment(FETCHED_US))


def test_the_quarantine_has_the_json_where_there_is_one(tmp_path: Path) -> None:
    quarantined = rows_of(tmp_path, {f"{THING}/a": [BLOB], f"{THING}/b": {"x": -(2**64)}, f"{THING}/c": b"\xff"})[None]
    assert [row["record_json"] for row in quarantined] == [f'[{{"$link":"{cid_text(BLOB.cid)}"}}]', None, None]
    assert quarantined[2]["reason"].startswith("Failed to decode DAG-CBOR")


def test_a_record_nested_beyond_all_bounds(tmp_path: Path) -> None:
    block = b"\xa1\x61a" + b"\x81" * 100_000 + b"\x00"
    rows = rows_of(tmp_path, {f"{THING}/a": block, f"{THING}/b": {}})
    assert [row["rkey"] for row in rows[THING]] == ["b"]
    assert [row["reason"] for row in rows[None]] == ["the block is nested too deeply to be decoded"]


@pytest.mark.parametrize("raw", ["cbor", "none"])
def test_what_json_cannot_hold_is_a_row_where_no_json_is_wanted(tmp_path: Path, raw: Raw) -> None:
    row = row_of(tmp_path, THING, {"x": -(2**64)}, raw)
    assert row.get("record") == (encode_dag_cbor({"x": -(2**64)}) if raw == "cbor" else None)
    assert ("record" in row) is (raw == "cbor")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("com.example.*bad/a", "the collection is not an NSID"),
        ("com.example.1bad/a", "the collection is not an NSID"),
        (
            f"com.example.{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 63}/a",
            "the collection's name is longer than 243 bytes",
        ),
        (f"{THING}/.", "the record key breaks the protocol's syntax"),
        (f"{THING}/{'k' * 513}", "the record key breaks the protocol's syntax"),
    ],
)
def test_keys_that_name_no_place_for_a_row(tmp_path: Path, key: str, reason: str) -> None:
    rows = rows_of(tmp_path, {key: {"a": 1}, f"{THING}/good": {}})
    assert [row["rkey"] for row in rows[THING]] == ["good"]
    ((found, uri, text),) = [(row["reason"], row["uri"], row["record_json"]) for row in rows[None]]
    assert (found, uri, text) == (reason, f"at://{DID}/{key}", '{"a":1}')


def test_the_longest_collection_that_gets_a_folder(tmp_path: Path) -> None:
    name = f"com.example.{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 39}"
    assert len(name) == COLLECTION_MAX_BYTES
    assert list(rows_of(tmp_path, {f"{name}/a": {}})) == [name]


def test_one_repo_cannot_make_parts_without_end(tmp_path: Path) -> None:
    records: dict[str, Any] = {f"com.example.c{number:04}/a": {} for number in range(COLLECTIONS_MAX + 3)}
    parts, (counts,) = write(tmp_path, [FakeRepo(records)])
    assert len(parts) == COLLECTIONS_MAX + 1
    assert (len(counts.records_by_type), counts.quarantined) == (COLLECTIONS_MAX, 3)
    reasons = tables_of(tmp_path, parts)[None].column("reason").to_pylist()
    assert reasons == [f"the repo has more than {COLLECTIONS_MAX} of the wanted collections"] * 3


def kept_keys(folder: Path, records: dict[str, Any], selection: Selection) -> tuple[list[str], int]:
    parts, (counts,) = write(folder, [FakeRepo(records)], selection)
    tables = tables_of(folder, parts).values()
    return sorted(key for table in tables for key in table.column("rkey").to_pylist()), counts.undated


def test_both_ends_of_the_time_range_are_kept(tmp_path: Path) -> None:
    times = {
        "a": "2024-01-01T11:59:59.999Z",
        "b": AT_NOON,
        "c": "2024-01-01T14:00:00+02:00",
        "d": "2024-01-01T12:00:01.000000Z",
        "e": "2024-01-01T12:00:01.000001Z",
        "f": "2024-01-01T12:00:00+02:00",
    }
    records = {f"{THING}/{key}": {"createdAt": text} for key, text in times.items()}
    assert kept_keys(tmp_path, records, Selection((THING,), NOON, NOON + 1_000_000)) == (["b", "c", "d"], 0)


def test_without_a_readable_date_the_key_decides(tmp_path: Path) -> None:
    records = {
        f"{THING}/{tid(0)}": {"createdAt": "yesterday"},
        f"{THING}/{tid(1)}": {},
        f"{THING}/{tid(2)}": {"createdAt": 5},
        f"{THING}/{tid(3)}": {"createdAt": AT_NOON},
        f"{THING}/self": {"createdAt": "0000-01-01T00:00:00Z"},
        f"{THING}/other": {},
        f"{THING}/dated": {"createdAt": AT_NOON},
    }
    kept, undated = kept_keys(tmp_path, records, Selection((THING,), NOON, NOON + 1_000_000))
    assert kept == sorted([tid(0), tid(1), tid(3), "dated"])
    assert undated == 2


def test_without_a_range_everything_is_kept(tmp_path: Path) -> None:
    records: dict[str, Any] = {f"{THING}/self": {}, f"{THING}/{tid()}": {"createdAt": "never"}}
    assert kept_keys(tmp_path, records, EVERYTHING) == (sorted([tid(), "self"]), 0)


def test_broken_records_are_judged_by_time_too(tmp_path: Path) -> None:
    records = {
        f"{LIKE}/{tid(0)}": b"\xff",
        f"{LIKE}/{tid(9)}": b"\xff",
        f"{LIKE}/undated": b"\xff",
        f"{LIKE}/wrong": {"subject": 5, "createdAt": AT_NOON},
        f"{LIKE}/outside": {"subject": 5, "createdAt": "2023-01-01T12:00:00.000Z"},
    }
    parts, (counts,) = write(tmp_path, [FakeRepo(records)], Selection((LIKE,), NOON, NOON))
    assert tables_of(tmp_path, parts)[None].column("rkey").to_pylist() == [tid(0), "wrong"]
    assert (counts.undated, counts.quarantined, counts.records_by_type) == (1, 2, {})


def keys_passing(folder: Path, records: dict[str, Any], *filters: RecordFilter) -> list[str]:
    return kept_keys(folder, records, Selection((POST, LIKE, FOLLOW), filters=filters))[0]


def only(collection: str, match: Match, *uris: str) -> RecordFilter:
    return RecordFilter(collection, match, frozenset(uris))


def test_a_filter_by_uri_covers_posts_and_replies_and_leaves_other_types_alone(tmp_path: Path) -> None:
    records = {
        f"{POST}/a": {"text": "x"},
        f"{POST}/b": {"text": "x", "reply": {"parent": REF}},
        f"{POST}/c": {"text": "x"},
        f"{LIKE}/d": {"subject": REF},
    }
    listed = [f"at://{DID}/{POST}/a", f"at://{DID}/{POST}/b", "at://did:plc:other/app.bsky.feed.post/c"]
    assert keys_passing(tmp_path, records, only(POST, "uri", *listed)) == ["a", "b", "d"]


def test_a_filter_by_subject(tmp_path: Path) -> None:
    records = {
        f"{LIKE}/a": {"subject": REF},
        f"{LIKE}/b": {"subject": ROOT},
        f"{LIKE}/c": {},
        f"{LIKE}/d": {"subject": {"uri": 5}},
        f"{LIKE}/e": b"\xff",
        f"{FOLLOW}/f": {"subject": "did:plc:b"},
        f"{FOLLOW}/g": {"subject": "did:plc:c"},
    }
    likes, follows = only(LIKE, "subject_uri", REF["uri"]), only(FOLLOW, "subject_uri", "did:plc:b")
    assert keys_passing(tmp_path, records, likes, follows) == ["a", "f"]


@pytest.mark.parametrize(("match", "kept"), [("parent_uri", ["a", "c"]), ("root_uri", ["b", "c"])])
def test_filters_by_parent_and_root(tmp_path: Path, match: Match, kept: list[str]) -> None:
    records = {
        f"{POST}/a": {"reply": {"parent": REF, "root": ROOT}},
        f"{POST}/b": {"reply": {"parent": ROOT, "root": REF}},
        f"{POST}/c": {"reply": {"parent": REF, "root": REF}},
        f"{POST}/d": {"reply": {"parent": "x"}},
        f"{POST}/e": {"text": "no reply"},
        f"{POST}/f": {"reply": "odd"},
    }
    assert keys_passing(tmp_path, records, only(POST, match, REF["uri"])) == kept


def test_a_record_has_to_pass_every_filter_on_its_collection(tmp_path: Path) -> None:
    records = {
        f"{POST}/a": {"reply": {"parent": REF, "root": ROOT}},
        f"{POST}/b": {"reply": {"parent": REF, "root": REF}},
        f"{POST}/c": {"reply": {"parent": REF, "root": ROOT}},
    }
    filters = (
        only(POST, "parent_uri", REF["uri"]),
        only(POST, "root_uri", ROOT["uri"]),
        only(POST, "uri", f"at://{DID}/{POST}/a", f"at://{DID}/{POST}/b"),
        only(POST, "uri", f"at://{DID}/{POST}/a", f"at://{DID}/{POST}/c"),
    )
    assert keys_passing(tmp_path, records, *filters) == ["a"]


def test_what_a_filter_leaves_out_is_not_counted_as_undated(tmp_path: Path) -> None:
    records = {f"{LIKE}/a": {"subject": ROOT}, f"{LIKE}/b": {"subject": REF}}
    selection = Selection((LIKE,), 0, 1, (only(LIKE, "subject_uri", REF["uri"]),))
    assert kept_keys(tmp_path, records, selection) == ([], 1)
