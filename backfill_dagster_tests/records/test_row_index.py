"""The row index: each DID's live rows, found among the row groups of many parts, with a bound on what is kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.part_file import PartFile, part_key
from backfill_dagster.records.row_index import RowIndex, RowRange
from backfill_dagster.records.schema import quarantine_schema
from backfill_dagster.store.local import LocalStore

Rows = list[tuple[str, int]]
"""(Author, number) of each row."""


class Counting(LocalStore):
    """Counts how often a part is opened."""

    opened = 0

    def find(self, key: str) -> str:
        self.opened += 1
        return super().find(key)


class Shard:
    """A store with parts of few columns, and the fold that says so."""

    def __init__(self, folder: Path) -> None:
        self.store = Counting(folder)
        self.parts: dict[str, LivePart] = {}
        self.superseded: dict[str, int] = {}

    def add(self, record_type: str | None, seq: int, *groups: Rows) -> str:
        """A part whose row groups have these rows; returns its path."""
        key = part_key(record_type, shard="s~0000", seq=seq, epoch=1, unique=f"{len(self.parts):02x}")
        schema = pa.schema([pa.field("author", pa.string()), pa.field("number", pa.int64())])
        file = PartFile(self.store, key, record_type, schema, "zstd")
        for rows in groups:
            columns = [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(schema)]
            file.write([pa.RecordBatch.from_arrays(columns, schema=schema)])
        part = file.finish()
        self.store.publish([key])
        self.parts[key] = LivePart(part, seq)
        return key

    @property
    def fold(self) -> Fold:
        return Fold(seq=9, parts=self.parts, superseded=self.superseded)

    def index(self, **options: Any) -> RowIndex:
        return RowIndex(self.store, self.fold, **options)


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path)


def numbers(batches: Iterable[tuple[str | None, Any]]) -> list[tuple[str | None, list[int]]]:
    return [(name, table.column("number").to_pylist()) for name, table in batches]


def rows_of(index: RowIndex, did: str) -> int:
    """How many rows the DID has, those in quarantine too."""
    return sum(one.stop - one.start for one in index.ranges(did))


def test_ranges_over_row_groups_and_parts(shard: Shard) -> None:
    likes = shard.add("like", 1, [("a", 1), ("a", 2), ("b", 3)], [("b", 4)], [("b", 5), ("c", 6)])
    posts = shard.add("post", 1, [("b", 7)])
    bad = shard.add(None, 2, [("c", 8), ("b", 9)])
    index = shard.index()
    assert index.ranges("b") == [
        RowRange("like", likes, 0, 2, 3),
        RowRange("like", likes, 1, 0, 1),
        RowRange("like", likes, 2, 0, 1),
        RowRange("post", posts, 0, 0, 1),
        RowRange(None, bad, 0, 1, 2),
    ]
    assert numbers(index.batches("b")) == [("like", [3]), ("like", [4]), ("like", [5]), ("post", [7]), (None, [9])]
    assert numbers(index.batches("a")) == [("like", [1, 2])]
    assert [rows_of(index, did) for did in "abcd"] == [2, 5, 2, 0]
    assert (index.ranges("d"), list(index.batches("d"))) == ([], [])


def test_rows_of_some_types_only(shard: Shard) -> None:
    shard.add("like", 1, [("a", 1)])
    shard.add(None, 1, [("a", 2)])
    shard.add("post", 1, [("a", 3)])
    index = shard.index()
    assert numbers(index.batches("a", (None, "post"))) == [(None, [2]), ("post", [3])]
    assert list(index.batches("a", ("reply",))) == []


def test_all_columns_are_there(shard: Shard) -> None:
    shard.add("like", 1, [("a", 1)])
    ((_, table),) = shard.index().batches("a")
    assert table.column_names == ["author", "number"]


def test_dead_rows_are_left_out_and_those_of_the_entry_that_killed_them_are_not(shard: Shard) -> None:
    shard.add("like", 1, [("a", 1), ("b", 2)])
    shard.add("post", 2, [("a", 3)])
    shard.add("like", 3, [("a", 4)])
    shard.superseded = {"a": 3}
    index = shard.index()
    assert numbers(index.batches("a")) == [("like", [4])]
    assert numbers(index.batches("b")) == [("like", [2])]
    shard.superseded = {"a": 4, "b": 2}
    index = shard.index()
    assert [rows_of(index, did) for did in "ab"] == [0, 0]


runs = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3)), min_size=1, max_size=5)


@settings(derandomize=True, database=None, deadline=None, max_examples=30)
@given(st.lists(st.lists(runs, min_size=1, max_size=3), min_size=1, max_size=3))
def test_every_row_is_found_once_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, given_parts: list[list[list[tuple[str, int]]]]
) -> None:
    shard = Shard(tmp_path_factory.mktemp("shard"))
    rows: Rows = []
    for groups in given_parts:
        made: list[Rows] = []
        for group in groups:
            authors = [author for author, count in group for _ in range(count)]
            made.append([(author, len(rows) + number) for number, author in enumerate(authors)])
            rows += made[-1]
        shard.add("like", 1, *made)
    index = shard.index()
    for author in "abcde":
        found = [number for _, some in numbers(index.batches(author)) for number in some]
        assert found == [number for one, number in rows if one == author]
        assert rows_of(index, author) == len(found)


def test_row_groups_are_read_once_as_long_as_they_fit(shard: Shard) -> None:
    shard.add("like", 1, *([(str(group), number) for number in range(100)] for group in range(8)))
    one_group = held_bytes(shard, "0")
    for kept, reads in ((8, 8), (1, 16)):
        index = shard.index(cache_bytes=kept * one_group)
        shard.store.opened = 0
        for _ in range(2):
            for group in range(8):
                assert numbers(index.batches(str(group))) == [("like", list(range(100)))]
                assert list(index.batches(str(group)))
        assert shard.store.opened == reads
        assert sum(table.nbytes for table in index._cached.values()) == index._held_bytes == kept * one_group


def held_bytes(shard: Shard, did: str) -> int:
    """What an index keeps of the row group of one DID."""
    index = shard.index()
    assert list(index.batches(did))
    return index._held_bytes


def test_the_row_group_that_was_used_last_stays(shard: Shard) -> None:
    shard.add("like", 1, *([(str(group), 0)] * 100 for group in range(3)))
    index = shard.index(cache_bytes=2 * held_bytes(shard, "0"))
    for group in (0, 1, 0, 2):
        list(index.batches(str(group)))
    shard.store.opened = 0
    list(index.batches("0"))
    assert shard.store.opened == 0
    list(index.batches("1"))
    assert shard.store.opened == 1


def test_a_row_group_larger_than_the_cache_is_kept_alone(shard: Shard) -> None:
    shard.add("like", 1, [("a", number) for number in range(1000)], [("b", 1)])
    index = shard.index(cache_bytes=1)
    for did in "aba":
        list(index.batches(did))
        assert len(index._cached) == 1


def test_a_missing_part(shard: Shard) -> None:
    path = shard.add("like", 1, [("a", 1)])
    Path(shard.store.find(path)).unlink()
    with pytest.raises(ObjectMissingError):
        shard.index()


@pytest.mark.parametrize("damage", ["empty", "cut", "overwritten"])
def test_an_unreadable_part(shard: Shard, damage: str) -> None:
    path = shard.add("like", 1, [("a", number) for number in range(1000)])
    file = Path(shard.store.find(path))
    data = file.read_bytes()
    index = shard.index()
    broken = {
        "empty": b"",
        "cut": data[:-9],
        "overwritten": data[:4] + b"\xff" * (len(data) // 2) + data[4 + len(data) // 2 :],
    }
    file.write_bytes(broken[damage])
    with pytest.raises(StateError, match=f"can't read .*{file.name}"):
        shard.index()
    with pytest.raises(StateError, match=f"can't read .*{file.name}"):
        list(index.batches("a"))


def test_an_empty_shard_and_an_empty_part(shard: Shard) -> None:
    assert rows_of(shard.index(), "a") == 0
    key = part_key(None, shard="s~0000", seq=1, epoch=1, unique="ff")
    part = PartFile(shard.store, key, None, quarantine_schema(), "zstd").finish()
    shard.store.publish([key])
    shard.parts[key] = LivePart(part, 1)
    assert list(shard.index().batches("a")) == []
