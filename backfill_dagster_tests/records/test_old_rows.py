"""Batches with old rows: a DID whose repo came in part gets the parts and counts of a whole fetch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.records import parts as parts_module
from backfill_dagster.records.entry import Part
from backfill_dagster.records.parts import BatchWriter, OldRows
from backfill_dagster.records.rows import RepoCounts
from backfill_dagster.records.schema import quarantine_schema, schema_for
from backfill_dagster.store.local import LocalStore
from backfill_dagster_tests.records.fake_repo import (
    DID,
    FETCHED_US,
    FakeRepo,
    table_of,
    tables_of,
    tid,
    write,
    writer_at,
)

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
THING, OTHER, NO_NSID = "com.example.thing", "com.example.thing-a.other", "com.example.thing-two"
NEW_REV, NEW_US = "3kzzzzzzzzz2a", FETCHED_US + 10**12

CONTENTS: tuple[Any, ...] = (
    {"text": "x", "createdAt": "2024-01-01T00:00:00Z", "subject": "did:plc:b"},
    {"text": "x", "reply": {}, "langs": ["en", "de"], "subject": "did:plc:c"},
    {"text": 4, "subject": {"uri": "at://a"}},
    b"\xff",
)
"""A post and a reply; rows under some collections and not under others; what is a row nowhere."""

KEYS = sorted(f"{name}/{tid(number)}" for name in (POST, LIKE, FOLLOW, THING, OTHER, NO_NSID) for number in range(3))


class Life:
    """A DID whose repo is fetched once as a whole, and once as old rows that stand and new records."""

    def __init__(self, folder: Path, records: Mapping[str, Any], did: str = DID, rows_at_a_time: int = 2) -> None:
        self.records = dict(records)
        self.did = did
        parts, _ = write(folder, [FakeRepo(self.records, did)])
        self.tables = tables_of(folder, parts)
        self._rows_at_a_time = rows_at_a_time

    def old(self, kept: Collection[str]) -> OldRows:
        """The rows of these keys as the worker gives them: types without any are not there."""
        masks = {
            name: pa.array([uri.removeprefix(f"at://{self.did}/") in kept for uri in table.column("uri").to_pylist()])
            for name, table in self.tables.items()
        }
        found = {name: self.tables[name].filter(mask) for name, mask in masks.items()}
        return {name: partial(self._batches, table) for name, table in found.items() if table.num_rows}

    def _batches(self, table: Any) -> Iterator[Any]:
        yield from table.combine_chunks().to_batches(max_chunksize=self._rows_at_a_time)

    def refresh(self, writer: BatchWriter, new: Mapping[str, Any], *gone: str) -> tuple[RepoCounts, FakeRepo]:
        """Refresh with these new records; returns also the repo as a whole fetch would have it."""
        kept = self.records.keys() - new.keys() - set(gone)
        counts = writer.add_repo(FakeRepo(dict(new), self.did), fetched_at_us=NEW_US, rev=NEW_REV, old=self.old(kept))
        now = {key: self.records[key] for key in kept} | dict(new)
        assert counts.kept == len(kept)
        return counts, FakeRepo(now, self.did)


def whole(folder: Path, *repos: FakeRepo) -> tuple[dict[str | None, Any], list[RepoCounts]]:
    writer = writer_at(folder)
    counts = [writer.add_repo(repo, fetched_at_us=NEW_US, rev=NEW_REV) for repo in repos]
    return tables_of(folder, writer.finish()), counts


def assert_alike(folder: Path, parts: list[Part], counts: list[RepoCounts], *repos: FakeRepo) -> None:
    """These parts and counts are those of whole fetches of these repos."""
    tables, expected = whole(folder / "whole", *repos)
    found = tables_of(folder, parts)
    assert found.keys() == tables.keys()
    for name, table in found.items():
        assert table.combine_chunks().equals(tables[name].combine_chunks()), name
        assert table.schema.equals(quarantine_schema() if name is None else schema_for(name), check_metadata=True)
    assert [(one.records_by_type, one.quarantined) for one in counts] == [
        (one.records_by_type, one.quarantined) for one in expected
    ]


contents = st.sampled_from(CONTENTS)
some_records = st.dictionaries(st.sampled_from(KEYS), contents, max_size=len(KEYS))


@settings(derandomize=True, database=None, deadline=None, max_examples=40)
@given(some_records, some_records, st.sets(st.sampled_from(KEYS)), st.integers(1, 3), st.sampled_from([1, 10**6]))
def test_a_refresh_is_a_whole_fetch(
    tmp_path_factory: pytest.TempPathFactory,
    records: dict[str, Any],
    new: dict[str, Any],
    gone: set[str],
    rows_at_a_time: int,
    flush_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    life = Life(folder / "old", records, rows_at_a_time=rows_at_a_time)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "FLUSH_BYTES", flush_bytes)
        patch.setattr(parts_module, "ARROW_BYTES_MAX", 0 if flush_bytes == 1 else 10**6)
        writer = writer_at(folder)
        counts, repo = life.refresh(writer, new, *gone)
        parts = writer.finish()
    assert_alike(folder, parts, [counts], repo)


def test_the_neighbours_of_a_refreshed_did_in_its_batch(tmp_path: Path) -> None:
    first = FakeRepo({f"{POST}/{tid(n)}": CONTENTS[n % 2] for n in range(3)} | {f"{THING}/a": {}}, "did:plc:z")
    last = FakeRepo({f"{POST}/{tid(n)}": CONTENTS[n % 2] for n in range(3)} | {f"{OTHER}/a": {}}, "did:plc:a")
    middle = Life(tmp_path / "old", dict.fromkeys(KEYS, CONTENTS[1]), "did:plc:m")
    writer = writer_at(tmp_path)
    counts = [writer.add_repo(first, fetched_at_us=NEW_US, rev=NEW_REV)]
    found, repo = middle.refresh(writer, {f"{THING}/3": {}, f"{POST}/a": CONTENTS[0]}, KEYS[0])
    counts += [found, writer.add_repo(last, fetched_at_us=NEW_US, rev=NEW_REV)]
    assert_alike(tmp_path, writer.finish(), counts, first, repo, last)


def test_types_that_only_old_rows_have_keep_their_collection(tmp_path: Path) -> None:
    kinds = {f"{POST}/{tid(n)}": CONTENTS[n] for n in range(2)} | {f"{OTHER}/a": {}, f"{LIKE}/a": CONTENTS[3]}
    life = Life(tmp_path / "old", kinds)
    later = FakeRepo(kinds, "did:plc:later")
    writer = writer_at(tmp_path)
    counts, repo = life.refresh(writer, {})
    counts_after = writer.add_repo(later, fetched_at_us=NEW_US, rev=NEW_REV)
    assert (counts.kept, counts.records_by_type, counts.quarantined) == (4, {"post": 1, "reply": 1, OTHER: 1}, 1)
    assert counts.seen_by_collection == {}
    parts = writer.finish()
    assert_alike(tmp_path, parts, [counts, counts_after], repo, later)
    pairs = {(part.record_type, *set(table_of(tmp_path, part).column("collection").to_pylist())) for part in parts}
    assert pairs == {("post", POST), ("reply", POST), (OTHER, OTHER), (None, LIKE)}


def test_rows_that_changed_their_type(tmp_path: Path) -> None:
    post, reply, broken = (f"{POST}/{tid(n)}" for n in range(3))
    life = Life(tmp_path / "old", {post: CONTENTS[0], reply: CONTENTS[1], broken: CONTENTS[3]})
    writer = writer_at(tmp_path)
    counts, repo = life.refresh(writer, {post: CONTENTS[1], reply: CONTENTS[3], broken: CONTENTS[0]})
    assert (counts.records_by_type, counts.quarantined, counts.kept) == ({"post": 1, "reply": 1}, 1, 0)
    assert_alike(tmp_path, writer.finish(), [counts], repo)


def test_what_is_purged_makes_no_new_row(tmp_path: Path) -> None:
    life = Life(tmp_path / "old", {f"{THING}/a": {}})
    writer = writer_at(tmp_path)
    new = FakeRepo({f"{THING}/b": {}, f"{THING}/c": {}})
    purged = frozenset({f"at://{DID}/{THING}/b"})
    counts = writer.add_repo(new, fetched_at_us=NEW_US, rev=NEW_REV, purged=purged, old=life.old({f"{THING}/a"}))
    (part,) = writer.finish()
    assert table_of(tmp_path, part).column("rkey").to_pylist() == ["a", "c"]
    assert (counts.records_by_type, counts.kept) == ({THING: 2}, 1)


def test_old_rows_weigh_and_count_as_the_writers_own(tmp_path: Path) -> None:
    life = Life(tmp_path / "old", {f"{THING}/{n}": {"n": "x" * 1000} for n in range(50)} | {f"{LIKE}/a": b"\xff"})
    writer = writer_at(tmp_path)
    life.refresh(writer, {})
    assert (writer.rows, writer.parts) == (50, 2)
    assert writer.bytes_buffered > 50 * 1000
    writer.discard()
    assert LocalStore(tmp_path).staged() == []


def test_old_rows_leave_memory_while_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "ARROW_BYTES_MAX", 20_000)
    life = Life(tmp_path / "old", {f"{THING}/{n:03}": {"n": "x" * 1000} for n in range(200)}, rows_at_a_time=5)
    writer = writer_at(tmp_path)
    waiting: list[int] = []

    def watched(batches: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        for batch in batches():
            waiting.append(writer._arrow_bytes)
            yield batch

    ((name, batches),) = life.old(life.records).items()
    new = FakeRepo({f"{THING}/{n:03}x": {"n": "y" * 1000} for n in range(200)})
    counts = writer.add_repo(new, fetched_at_us=NEW_US, rev=NEW_REV, old={name: partial(watched, batches)})
    assert (len(waiting), counts.kept, counts.records_by_type) == (40, 200, {THING: 400})
    assert max(waiting) <= 20_000
    (part,) = writer.finish()
    uris = table_of(tmp_path, part).column("uri").to_pylist()
    assert uris == sorted(uris)
    assert len(uris) == 400
