"""Batches: many repos and types, flush boundaries, evidence about each file, and nothing left of what was discarded."""

from __future__ import annotations

import errno
import gc
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from backfill_dagster.errors import StateError
from backfill_dagster.records import parts as parts_module
from backfill_dagster.records.part_file import PartFile, part_key
from backfill_dagster.records.schema import schema_for
from backfill_dagster.store.disk import Disk
from backfill_dagster.store.local import LocalStore
from backfill_dagster_tests.records.fake_repo import (
    FETCHED_US,
    REV,
    FakeRepo,
    table_of,
    tables_of,
    tid,
    write,
    writer_at,
)

POST, LIKE, THING = "app.bsky.feed.post", "app.bsky.feed.like", "com.example.thing"


def likes(count: int, did: str = "did:plc:a", collection: str = LIKE) -> FakeRepo:
    records = {f"{collection}/{tid(number)}": {"subject": {"uri": f"{did}{number}"}} for number in range(count)}
    return FakeRepo(records, did)


def test_paths_say_type_shard_seq_and_epoch(tmp_path: Path) -> None:
    repo = FakeRepo({f"{POST}/{tid()}": {"text": "x"}, f"{THING}/a": {}, f"{THING}/b": b"\xff"})
    parts, _ = write(tmp_path, [repo], seq=42, epoch=7)
    assert [(part.path, part.record_type, part.rows) for part in parts] == [
        ("quarantine/example.com~0000-00000042-7-00000003.parquet", None, 1),
        ("records/record_type=com.example.thing/example.com~0000-00000042-7-00000002.parquet", THING, 1),
        ("records/record_type=post/example.com~0000-00000042-7-00000001.parquet", "post", 1),
    ]


def test_parts_wait_in_staging_with_their_size_and_digest(tmp_path: Path) -> None:
    parts, _ = write(tmp_path, [likes(100)])
    store = LocalStore(tmp_path)
    assert store.list("") == []
    assert [(info.key, info.size) for info in store.staged()] == [(part.path, part.bytes) for part in parts]
    (part,) = parts
    assert hashlib.sha256(Path(store.find(part.path)).read_bytes()).hexdigest() == part.sha256


def test_rows_stand_in_repo_order_and_repos_in_the_order_they_came(tmp_path: Path) -> None:
    parts, counts = write(tmp_path, [likes(3, "did:plc:z"), likes(2, "did:plc:a")])
    table = table_of(tmp_path, parts[0])
    assert table.column("author").to_pylist() == ["did:plc:z"] * 3 + ["did:plc:a"] * 2
    assert table.column("rkey").to_pylist() == [tid(0), tid(1), tid(2), tid(0), tid(1)]
    assert [one.records_by_type for one in counts] == [{"like": 3}, {"like": 2}]


def test_a_repo_without_wanted_records_and_an_empty_one_make_no_parts(tmp_path: Path) -> None:
    parts, counts = write(tmp_path, [FakeRepo({}), FakeRepo({"org.other.thing/a": {}})])
    assert parts == []
    assert [one.seen_by_collection for one in counts] == [{}, {"org.other.thing": 1}]
    assert LocalStore(tmp_path).staged() == []


def test_version_2_repos_have_no_rev(tmp_path: Path) -> None:
    for rev in (None, ""):
        folder = tmp_path / str(rev)
        writer = writer_at(folder)
        writer.add_repo(likes(1), fetched_at_us=0, rev=rev)
        (part,) = writer.finish()
        assert table_of(folder, part).column("rev").to_pylist() == [None]


def test_numbers_for_the_caller_who_cuts_batches(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    assert (writer.rows, writer.parts, writer.bytes_buffered) == (0, 0, 0)
    writer.add_repo(FakeRepo({f"{THING}/a": {"x": "y" * 5000}, f"{THING}/b": b"\xff"}), fetched_at_us=0, rev=REV)
    assert (writer.rows, writer.parts) == (1, 2)
    assert 5000 < writer.bytes_buffered < 6000
    writer.discard()


SMALL: list[tuple[int, int, int]] = [(1, 10**9, 64), (1, 0, 64), (1000, 2000, 64), (700, 0, 1), (3000, 5000, 2)]


@pytest.mark.parametrize(("flush_bytes", "arrow_bytes", "open_files"), SMALL)
def test_flushing_changes_nothing_but_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_bytes: int, arrow_bytes: int, open_files: int
) -> None:
    repos = [
        FakeRepo(
            {f"{POST}/{tid(n)}": {"text": "x", **({"reply": {}} if n % 3 else {})} for n in range(20)}
            | {f"{LIKE}/{tid(n)}": {"subject": {"uri": str(n)}} for n in range(30)}
            | {f"{LIKE}/broken{n}": {"subject": n} for n in range(5)}
            | {f"{THING}{m}/{n}": {"n": n} for n in range(3) for m in "abcd"},
            did,
        )
        for did in ("did:plc:a", "did:plc:b")
    ]
    whole, whole_counts = write(tmp_path / "whole", repos)
    monkeypatch.setattr(parts_module, "FLUSH_BYTES", flush_bytes)
    monkeypatch.setattr(parts_module, "ARROW_BYTES_MAX", arrow_bytes)
    monkeypatch.setattr(parts_module, "OPEN_FILES_MAX", open_files)
    cut, cut_counts = write(tmp_path / "cut", repos)
    assert cut_counts == whole_counts
    assert {part.record_type: part.rows for part in cut} == {part.record_type: part.rows for part in whole}
    expected = tables_of(tmp_path / "whole", whole)
    for name, table in tables_of(tmp_path / "cut", cut).items():
        assert table.equals(expected[name])


def test_the_type_with_most_arrow_data_gets_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "FLUSH_BYTES", 20_000)
    monkeypatch.setattr(parts_module, "ARROW_BYTES_MAX", 60_000)
    writer = writer_at(tmp_path)
    writer.add_repo(likes(1000, collection=LIKE), fetched_at_us=0, rev=REV)
    writer.add_repo(likes(3, collection="app.bsky.feed.repost"), fetched_at_us=0, rev=REV)
    assert [info.key.split("/")[1] for info in LocalStore(tmp_path).staged()] == ["record_type=like"]
    like, repost = writer.finish()
    groups = [pq.ParquetFile(LocalStore(tmp_path).find(part.path)).metadata.num_row_groups for part in (like, repost)]
    assert (like.rows, repost.rows) == (1000, 3)
    assert 2 < groups[0] < 8
    assert groups[1] == 1


def test_open_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "FLUSH_BYTES", 1)
    monkeypatch.setattr(parts_module, "ARROW_BYTES_MAX", 0)
    monkeypatch.setattr(parts_module, "OPEN_FILES_MAX", 3)
    writer = writer_at(tmp_path)
    writer.add_repo(FakeRepo({f"{THING}{m}/a": {} for m in "abcdef"}), fetched_at_us=0, rev=REV)
    assert len(LocalStore(tmp_path).staged()) == 3
    assert [part.rows for part in writer.finish()] == [1] * 6


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "none"])
def test_compressions_of_the_config(tmp_path: Path, compression: str) -> None:
    (part,), _ = write(tmp_path, [likes(10)], compression=compression)
    column = pq.ParquetFile(LocalStore(tmp_path).find(part.path)).metadata.row_group(0).column(0)
    assert column.compression == ("UNCOMPRESSED" if compression == "none" else compression.upper())


def test_dictionaries_only_where_values_repeat(tmp_path: Path) -> None:
    (part,), _ = write(
        tmp_path, [FakeRepo({f"{POST}/{tid()}": {"text": "x", "langs": ["en"], "embed": {"$type": "e"}}})]
    )
    group = pq.ParquetFile(LocalStore(tmp_path).find(part.path)).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    with_dictionary = [one.path_in_schema for one in columns if one.has_dictionary_page]
    assert with_dictionary == ["author", "collection", "rev", "fetched_at", "langs.list.element", "embed_type"]


def test_discard_leaves_nothing_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    writer_at(tmp_path).discard()
    monkeypatch.setattr(parts_module, "FLUSH_BYTES", 1)
    monkeypatch.setattr(parts_module, "ARROW_BYTES_MAX", 0)
    unfinished = writer_at(tmp_path)
    unfinished.add_repo(likes(10), fetched_at_us=0, rev=REV)
    assert len(store.staged()) == 1
    unfinished.discard()
    assert store.staged() == []
    finished = writer_at(tmp_path)
    finished.add_repo(likes(10), fetched_at_us=0, rev=REV)
    finished.finish()
    assert len(store.staged()) == 1
    finished.discard()
    finished.discard()
    assert store.staged() == []


def test_a_repo_that_fails_half_way_can_be_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FakeRepo):
        def block(self, cid: bytes) -> bytes:
            if cid == self.entries[-1][2]:
                raise KeyError(cid)
            return super().block(cid)

    monkeypatch.setattr(parts_module, "FLUSH_BYTES", 1)
    monkeypatch.setattr(parts_module, "ARROW_BYTES_MAX", 0)
    writer = writer_at(tmp_path)
    with pytest.raises(KeyError):
        writer.add_repo(Failing({f"{THING}/{n}": {"n": n} for n in range(5)}), fetched_at_us=0, rev=REV)
    writer.discard()
    assert LocalStore(tmp_path).staged() == []


class FullDisk(Disk):
    """Creates files that take `room` bytes and no more."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def create(self, path: Path) -> Any:
        file = super().create(path)
        write: Callable[[Any], int] = file.write

        def guarded(data: Any) -> int:
            self.room -= len(data)
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(data)

        class Guarded:
            def __enter__(self) -> Any:
                file.__enter__()
                return self

            def __exit__(self, *error: Any) -> None:
                file.__exit__(*error)

            def __getattr__(self, name: str) -> Any:
                return guarded if name == "write" else getattr(file, name)

        return Guarded()


@pytest.mark.parametrize("room", [0, 2, 1000, 3000])
def test_a_full_disk_is_one_line_with_the_remedy_and_leaves_nothing(tmp_path: Path, room: int) -> None:
    store = LocalStore(tmp_path, disk=FullDisk(room))
    writer = writer_at(tmp_path)
    writer._store = store
    writer.add_repo(likes(200), fetched_at_us=FETCHED_US, rev=REV)
    with pytest.raises(StateError, match="No space left on device; free space"):
        writer.finish()
    writer.discard()
    assert store.staged() == []


def test_an_abandoned_parquet_writer_dies_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    part = PartFile(LocalStore(tmp_path), "records/x.parquet", "like", schema_for("like"), "zstd")
    part.discard()
    del part
    gc.collect()
    assert complaints == []
    assert LocalStore(tmp_path).staged() == []


def test_a_part_file_of_its_own(tmp_path: Path) -> None:
    key = part_key("like", shard="s~0000", seq=1, epoch=1, unique="ab")
    assert key == "records/record_type=like/s~0000-00000001-1-ab.parquet"
    part = PartFile(LocalStore(tmp_path), key, "like", schema_for("like"), "zstd").finish()
    assert (part.rows, table_of(tmp_path, part).schema) == (0, schema_for("like"))
