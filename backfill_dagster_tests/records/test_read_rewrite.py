"""Live rows, and parts written anew without the dead ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.records import rewrite as rewrite_module
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.read import live_batches, live_counts, live_record_types, live_rows, part_batches
from backfill_dagster.records.rewrite import PartRewriter, Rewrite
from backfill_dagster.store.local import LocalStore
from backfill_dagster_tests.records.fake_repo import FakeRepo, table_of, tid, unique, write

LIKE, THING = "app.bsky.feed.like", "com.example.thing"


def repo(did: str, **records: Any) -> FakeRepo:
    kept = {f"{LIKE}/{tid(n)}": {"subject": {"uri": f"{did}/{n}"}} for n in range(records.pop("likes", 0))}
    return FakeRepo(kept | {f"{THING}/{key}": value for key, value in records.items()}, did)


def add(folder: Path, parts: dict[str, LivePart], seq: int, *repos: FakeRepo, raw: Any = "json") -> list[Part]:
    """Commit a batch: publish its parts and add them to the live ones."""
    written, _ = write(folder, repos, raw=raw, seq=seq, unique=unique())
    LocalStore(folder).publish(part.path for part in written)
    parts.update((part.path, LivePart(part, seq)) for part in written)
    return written


def rewrite(folder: Path, fold: Fold) -> Rewrite:
    numbers = iter(range(100))
    rewriter = PartRewriter(
        LocalStore(folder),
        fold,
        shard="example.com~0000",
        epoch=3,
        compression="zstd",
        unique=lambda: f"ff{next(numbers):02}",
    )
    return rewriter.superseded()


def two_batches(folder: Path) -> Fold:
    """Entry 1: a, b; entry 2: a again, c. So a's rows of entry 1 are dead."""
    parts: dict[str, LivePart] = {}
    add(folder, parts, 1, repo("did:plc:a", likes=2, x={"n": 1}, y=b"\xff"), repo("did:plc:b", likes=1, y=b"\xff"))
    add(folder, parts, 2, repo("did:plc:a", likes=3), repo("did:plc:c", likes=1))
    return Fold(seq=2, parts=parts, superseded={"did:plc:a": 2})


def test_live_rows_leave_out_what_is_superseded(tmp_path: Path) -> None:
    fold, store = two_batches(tmp_path), LocalStore(tmp_path)
    assert live_record_types(fold) == [THING, "like"]
    authors = live_rows(store, fold, "like", ["author"]).column("author").to_pylist()
    assert authors == ["did:plc:b", "did:plc:a", "did:plc:a", "did:plc:a", "did:plc:c"]
    assert live_counts(store, fold, "like") == Counter({"did:plc:a": 3, "did:plc:b": 1, "did:plc:c": 1})
    assert live_counts(store, fold, None) == Counter({"did:plc:b": 1})
    assert live_rows(store, fold, THING).num_rows == 0


def test_columns_are_given_as_asked_for(tmp_path: Path) -> None:
    fold, store = two_batches(tmp_path), LocalStore(tmp_path)
    assert live_rows(store, fold, "like", ["rkey", "uri"]).column_names == ["rkey", "uri"]
    assert {tuple(one.schema.names) for one in live_batches(store, fold, "like", ["rkey"])} == {("rkey",)}
    assert "record" in live_rows(store, fold, "like").column_names


def test_parts_with_and_without_raw_records_read_together(tmp_path: Path) -> None:
    parts: dict[str, LivePart] = {}
    add(tmp_path, parts, 1, repo("did:plc:a", likes=1))
    add(tmp_path, parts, 2, repo("did:plc:b", likes=1), raw="cbor")
    add(tmp_path, parts, 3, repo("did:plc:c", likes=1), raw="none")
    table = live_rows(LocalStore(tmp_path), Fold(seq=3, parts=parts), "like")
    assert table.schema.field("record").type == pa.binary()
    assert [value is None for value in table.column("record").to_pylist()] == [False, False, True]


def test_staged_parts_are_read_where_they_lie(tmp_path: Path) -> None:
    (part,), _ = write(tmp_path, [repo("did:plc:a", likes=2)])
    fold = Fold(seq=1, parts={part.path: LivePart(part, 1)})
    assert live_counts(LocalStore(tmp_path), fold, "like") == Counter({"did:plc:a": 2})


def test_a_vanished_part_is_told_apart_from_an_unreadable_one(tmp_path: Path) -> None:
    fold, store = two_batches(tmp_path), LocalStore(tmp_path)
    path = Path(store.find(next(key for key in fold.parts if "like" in key)))
    path.write_bytes(b"no Parquet at all")
    with pytest.raises(StateError, match=r"can't read .*; bring it back") as caught:
        live_rows(store, fold, "like")
    assert not isinstance(caught.value, ObjectMissingError)
    path.unlink()
    with pytest.raises(ObjectMissingError):
        live_rows(store, fold, "like")


def test_a_part_that_is_damaged_inside(tmp_path: Path) -> None:
    (part,), _ = write(tmp_path, [repo("did:plc:a", likes=50)])
    path = Path(LocalStore(tmp_path).find(part.path))
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(StateError, match="can't read"):
        list(part_batches(LocalStore(tmp_path), part.path))


def test_a_rewrite_takes_out_dead_rows_and_nothing_else(tmp_path: Path) -> None:
    fold, store = two_batches(tmp_path), LocalStore(tmp_path)
    before = {name: live_rows(store, fold, name) for name in ("like", THING, None)}
    change = rewrite(tmp_path, fold)
    assert change.removes == [key for key, live in fold.parts.items() if live.seq == 1]
    assert [(part.path, part.record_type, part.rows) for part in change.adds] == [
        ("quarantine/example.com~0000-00000003-3-ff00.parquet", None, 1),
        ("records/record_type=like/example.com~0000-00000003-3-ff02.parquet", "like", 1),
    ]
    left = {key: live for key, live in fold.parts.items() if key not in change.removes}
    after = Fold(seq=3, parts=left | {part.path: LivePart(part, 3) for part in change.adds}, superseded=fold.superseded)
    for name in ("like", THING, None):
        rows = sorted(live_rows(store, after, name).to_pylist(), key=lambda row: str(row["uri"]))
        assert rows == sorted(before[name].to_pylist(), key=lambda row: str(row["uri"]))
    assert rewrite(tmp_path, after) == Rewrite()


def test_a_rewritten_part_keeps_its_columns_and_their_meaning(tmp_path: Path) -> None:
    parts: dict[str, LivePart] = {}
    (old,) = add(tmp_path, parts, 1, repo("did:plc:a", likes=1), repo("did:plc:b", likes=1), raw="cbor")
    change = rewrite(tmp_path, Fold(seq=2, parts=parts, superseded={"did:plc:a": 2}))
    before, after = table_of(tmp_path, old), table_of(tmp_path, change.adds[0])
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.equals(before.slice(1))


def test_parts_without_dead_rows_are_left_alone(tmp_path: Path) -> None:
    parts: dict[str, LivePart] = {}
    add(tmp_path, parts, 1, repo("did:plc:b", likes=1))
    fold = Fold(seq=5, parts=parts, superseded={"did:plc:a": 5, "did:plc:b": 1})
    assert rewrite(tmp_path, fold) == Rewrite()
    assert LocalStore(tmp_path).staged() == []


def test_a_large_rewrite_writes_row_group_by_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite_module, "ROW_GROUP_BYTES", 1)
    change = rewrite(tmp_path, two_batches(tmp_path))
    assert [part.rows for part in change.adds] == [1, 1]


def test_a_rewrite_that_fails_leaves_nothing_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, store = two_batches(tmp_path), LocalStore(tmp_path)
    like = next(live.part for live in fold.parts.values() if live.part.record_type == "like")
    Path(store.find(like.path)).unlink()
    with pytest.raises(ObjectMissingError):
        rewrite(tmp_path, fold)
    assert store.staged() == []


def test_a_copy_that_fails_half_way_leaves_nothing_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, store = two_batches(tmp_path), LocalStore(tmp_path)

    def fail(*_: object) -> None:
        raise StateError("the disk is gone")

    monkeypatch.setattr(rewrite_module.PartFile, "write", fail)
    with pytest.raises(StateError, match="the disk is gone"):
        rewrite(tmp_path, fold)
    assert store.staged() == []
