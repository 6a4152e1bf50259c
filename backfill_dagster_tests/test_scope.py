"""From a config to the selection of records."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import SourceError
from backfill_dagster.records.selection import RecordFilter, Selection
from backfill_dagster.scope import load_selection


def config(tmp_path: Path, **more: object) -> BackfillConfig:
    block = {
        "name": "study",
        "source": {"type": "inline", "dids": ["did:plc:a"]},
        "record_types": ["app.bsky.feed.post", "app.bsky.graph.*"],
        **more,
    }
    return BackfillConfig.from_mapping(block, path=tmp_path / "study.yaml", environ={"BACKFILL_ROOT": str(tmp_path)})


def test_everything_of_the_wanted_types(tmp_path: Path) -> None:
    assert load_selection(config(tmp_path)) == Selection(("app.bsky.feed.post", "app.bsky.graph.*"))


def test_range_and_lists(tmp_path: Path) -> None:
    (tmp_path / "uris.txt").write_text("at://x/app.bsky.feed.post/1\nat://x/app.bsky.feed.post/2\n")
    selection = load_selection(
        config(
            tmp_path,
            time_range={"start_date": "1970-01-01", "end_date": "1970-01-02"},
            filters={
                "record_type": "app.bsky.feed.post",
                "match": "parent_uri",
                "source": {"type": "file", "path": "uris.txt"},
            },
        )
    )
    uris = frozenset({"at://x/app.bsky.feed.post/1", "at://x/app.bsky.feed.post/2"})
    assert selection == Selection(
        ("app.bsky.feed.post", "app.bsky.graph.*"),
        start_us=0,
        end_us=2 * 86_400_000_000 - 1,
        filters=(RecordFilter("app.bsky.feed.post", "parent_uri", uris),),
    )
    (tmp_path / "uris.txt").write_text("")
    with pytest.raises(SourceError, match="is empty, which would drop every record"):
        load_selection(config(tmp_path, filters=filter_on("uris.txt")))


def test_the_scope_follows_the_lists_content_not_its_order(tmp_path: Path) -> None:
    scopes = []
    for content in ("at://a\nat://b\n", "at://b\nat://a\nat://a\n", "at://a\n"):
        (tmp_path / "uris.txt").write_text(content)
        scopes.append(load_selection(config(tmp_path, filters=filter_on("uris.txt"))).scope)
    assert scopes[0] == scopes[1] != scopes[2]


def filter_on(path: str) -> dict[str, object]:
    return {"record_type": "app.bsky.feed.post", "source": {"type": "file", "path": path}}
