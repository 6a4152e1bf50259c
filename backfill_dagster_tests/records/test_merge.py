"""Two runs of rows in the order of their URIs become one, and old rows say what a newer revision would."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.records.merge import as_seen, merged
from backfill_dagster_tests.records.fake_repo import FETCHED_US, REV, FakeRepo, tables_of, tid, write

POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"
NEW_REV, NEW_US = "3kzzzzzzzzz2a", FETCHED_US + 10**12


def uri_batch(uris: list[str], **more: list[Any]) -> Any:
    return pa.RecordBatch.from_pydict({"uri": uris, **more})


def uris_of(batches: Iterator[Any]) -> list[list[str]]:
    return [batch.column("uri").to_pylist() for batch in batches]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], ["a"], [["a"]]),
        ([["a", "b"], ["c"]], None, [["a", "b"], ["c"]]),
        ([["b", "d"], ["f"]], ["a"], [["a", "b", "d"], ["f"]]),
        ([["b", "d"], ["f"]], ["c"], [["b", "c", "d"], ["f"]]),
        ([["b", "d"], ["f"]], ["e"], [["b", "d"], ["e", "f"]]),
        ([["b", "d"], ["f"]], ["g", "h"], [["b", "d"], ["f"], ["g", "h"]]),
        ([["b", "d"], ["f"]], ["a", "c", "e", "g"], [["a", "b", "c", "d"], ["e", "f"], ["g"]]),
    ],
)
def test_new_rows_go_before_between_and_behind(
    old: list[list[str]], new: list[str] | None, expected: list[list[str]]
) -> None:
    assert uris_of(merged(map(uri_batch, old), None if new is None else uri_batch(new))) == expected


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_any_two_runs_become_one(numbers: set[int], fresh: set[int], ends: set[int]) -> None:
    kept = sorted(f"{number:02}" for number in numbers - fresh)
    new = sorted(f"{number:02}" for number in fresh)
    cuts = sorted({0, len(kept), *(end for end in ends if end < len(kept))})
    old = [uri_batch(kept[low:high], at=[REV] * (high - low)) for low, high in pairwise(cuts)]
    found = list(merged(old, uri_batch(new, at=[NEW_REV] * len(new)) if new else None))
    assert [uri for batch in found for uri in batch.column("uri").to_pylist()] == sorted(kept + new)
    assert all(batch.num_rows for batch in found)
    pairs = {pair for batch in found for pair in zip(*batch.to_pydict().values(), strict=True)}
    assert pairs == {(uri, REV) for uri in kept} | {(uri, NEW_REV) for uri in new}


@pytest.mark.parametrize("rev", [NEW_REV, None])
def test_what_a_newer_revision_says_of_an_old_row(tmp_path: Path, rev: str | None) -> None:
    parts, _ = write(
        tmp_path, [FakeRepo({f"{POST}/{tid()}": {"text": "x", "langs": ["en"]}, f"{LIKE}/a": b"\xff", f"{LIKE}/b": {}})]
    )
    for table in tables_of(tmp_path, parts).values():
        (batch,) = table.to_batches()
        found = as_seen(batch, rev=rev, fetched_at_us=NEW_US)
        assert found.schema.equals(batch.schema, check_metadata=True)
        expected = batch.to_pylist()
        for row in expected:
            row["rev"] = rev
        rows = found.to_pylist()
        assert {row.pop("fetched_at").timestamp() for row in rows} == {NEW_US / 10**6}
        for row in expected:
            del row["fetched_at"]
        assert rows == expected
