"""What of a repo is read at all: wanted collections only, though every entry is counted."""

from __future__ import annotations

from pathlib import Path

from backfill_dagster.records.selection import Selection
from backfill_dagster_tests.records.fake_repo import FakeRepo, write

POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"


def test_every_entry_is_seen_and_only_wanted_ones_are_read(tmp_path: Path) -> None:
    class Watched(FakeRepo):
        read = 0

        def block(self, cid: bytes) -> bytes:
            self.read += 1
            return super().block(cid)

    repo = Watched({f"{POST}/a": {"text": "a"}, f"{LIKE}/b": {}, f"{LIKE}/c": {"n": 1}, "nonsense/d": b"\xff"})
    _, (counts,) = write(tmp_path, [repo], Selection((POST,)))
    assert counts.seen_by_collection == {LIKE: 2, POST: 1, "nonsense": 1}
    assert (counts.records_by_type, counts.undated, counts.quarantined) == ({"post": 1}, 0, 0)
    assert repo.read == 1
