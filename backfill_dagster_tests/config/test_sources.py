"""The source union, and filters: each type takes its own keys only."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_dagster.config import (
    FileSource,
    FileUriList,
    InlineSource,
    InlineUriList,
    S3Source,
    S3UriList,
    SqliteSource,
    SqliteUriList,
)
from backfill_dagster_tests.config.samples import build, problems_of

BUCKET_RULE = "the bucket's name has to be 3 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends"
TYPES = "one of sqlite, s3, file, inline"


@pytest.mark.parametrize(
    ("block", "source"),
    [
        (
            {"type": "sqlite", "path": "a.db"},
            SqliteSource(type="sqlite", path="a.db", query="SELECT did FROM dids", keep_columns=()),
        ),
        (
            {"type": "sqlite", "path": "a.db", "query": "SELECT did,\n  cohort FROM x", "keep_columns": ["cohort"]},
            SqliteSource(type="sqlite", path="a.db", query="SELECT did,\n  cohort FROM x", keep_columns=("cohort",)),
        ),
        (
            {"type": "s3", "path": "s3://my-bucket/dids/*.parquet", "region": "us-west-2", "column": "did"},
            S3Source(type="s3", path="s3://my-bucket/dids/*.parquet", region="us-west-2", column="did"),
        ),
        (
            {"type": "file", "path": "a.csv", "column": "d", "header": False, "keep_columns": ["c"]},
            FileSource(type="file", path="a.csv", column="d", header=False, keep_columns=("c",)),
        ),
        ({"type": "inline", "dids": ["did:web:a.b", "a.b"]}, InlineSource(type="inline", dids=("did:web:a.b", "a.b"))),
    ],
)
def test_sources(block: dict[str, Any], source: object) -> None:
    assert build(source=block).source == source


@pytest.mark.parametrize(
    ("block", "problems"),
    [
        ({}, [f"backfill.source.type: missing; accepted: {TYPES}"]),
        (None, ["backfill.source: not accepted, found nothing; accepted: a block of keys (a mapping)"]),
        ("dids.txt", ['backfill.source: not accepted, found "dids.txt"; accepted: a block of keys (a mapping)']),
        ({"type": "mysql"}, [f'backfill.source.type: not accepted, found "mysql"; accepted: {TYPES}']),
        ({"type": "sqlite"}, ["backfill.source.path: missing; accepted: a local path"]),
        ({"type": "inline"}, ["backfill.source.dids: missing; accepted: a list; each: text on one line"]),
        (
            {"type": "sqlite", "path": "s3://b/c", "querry": ""},
            [
                'backfill.source.path: not accepted, found "s3://b/c"; accepted: a local path',
                "backfill.source.querry: unknown key; did you mean query?",
            ],
        ),
        (
            {"type": "sqlite", "path": "a", "sqlite": 1},
            ["backfill.source.sqlite: unknown key; accepted: type, path, query, keep_columns"],
        ),
        (
            {"type": "s3", "path": "dids.csv"},
            ['backfill.source.path: not accepted, found "dids.csv"; accepted: an S3 address s3://bucket/key'],
        ),
        (
            {"type": "s3", "path": "s3://my-bucket/"},
            ['backfill.source.path: not accepted, found "s3://my-bucket/"; accepted: an S3 address s3://bucket/key'],
        ),
        (
            {"type": "s3", "path": "s3://B/x"},
            [f"backfill.source.path: {BUCKET_RULE}"],
        ),
        (
            {"type": "inline", "dids": ["a", 5]},
            ["backfill.source.dids[1]: not accepted, found 5; accepted: text on one line"],
        ),
        (
            {"type": "inline", "dids": ["a"], "keep_columns": ["c"]},
            [
                "backfill.source.keep_columns: a list in the YAML has no other columns to keep; "
                "use a sqlite or file source"
            ],
        ),
        (
            {"type": "file", "path": "dids"},
            [
                "backfill.source.format: not given, and the path's suffix is none of .csv, .parquet and .txt: "
                "set csv, parquet or text"
            ],
        ),
        (
            {"type": "file", "path": "a.txt", "column": "did", "keep_columns": ["c"]},
            [
                "backfill.source.column: a text file has no columns; it has one entry a line",
                "backfill.source.keep_columns: a text file has no columns; it has one entry a line",
            ],
        ),
        ({"type": "file", "format": "text"}, ["backfill.source.path: missing; accepted: a local path"]),
    ],
)  # fmt: skip
def test_sources_that_are_refused(block: object, problems: list[str]) -> None:
    assert sorted(problems_of(source=block)) == problems


@pytest.mark.parametrize(
    ("path", "format_", "expected"),
    [
        ("a.csv", None, "csv"),
        ("a.PARQUET", None, "parquet"),
        ("a.txt", None, "text"),
        ("a.txt", "csv", "csv"),
        ("a", "text", "text"),
    ],
)
def test_file_format(path: str, format_: str | None, expected: str) -> None:
    source = build(source={"type": "file", "path": path, "format": format_}).source
    assert isinstance(source, FileSource)
    assert source.file_format == expected


@pytest.mark.parametrize(
    ("block", "source"),
    [
        ({"type": "sqlite", "path": "a.db"}, SqliteUriList(type="sqlite", path="a.db", query="SELECT uri FROM uris")),
        ({"type": "s3", "path": "s3://my-bucket/a"}, S3UriList(type="s3", path="s3://my-bucket/a")),
        ({"type": "file", "path": "a.csv", "column": "uri"}, FileUriList(type="file", path="a.csv", column="uri")),
        ({"type": "inline", "uris": ["at://a"]}, InlineUriList(type="inline", uris=("at://a",))),
    ],
)
def test_filters_one_or_a_list(block: dict[str, Any], source: object) -> None:
    one = {"record_type": "app.bsky.feed.post", "source": block}
    two = one | {"match": "root_uri"}
    (only,) = build(filters=one).filters
    assert (only.record_type, only.match, only.source) == ("app.bsky.feed.post", "uri", source)
    assert build(filters=[one]).filters == (only,)
    assert [item.match for item in build(filters=[one, two]).filters] == ["uri", "root_uri"]


def test_no_filters() -> None:
    assert build().filters == build(filters=None).filters == build(filters=[]).filters == ()


URIS = {"type": "inline", "uris": ["at://a"]}


@pytest.mark.parametrize(
    ("filters", "problems"),
    [
        (5, ["backfill.filters: not accepted, found 5; accepted: a block, or a list of blocks"]),
        ([5], ["backfill.filters[0]: not accepted, found 5; accepted: a block of keys (a mapping)"]),
        (
            {"record_type": "app.bsky.feed.post", "source": URIS, "mach": "uri"},
            ["backfill.filters.mach: unknown key; did you mean match?"],
        ),
        (
            [{"record_type": "app.bsky.feed.*", "source": {"type": "inline", "dids": ["at://a"]}, "match": "any"}],
            [
                'backfill.filters[0].match: not accepted, found "any"; accepted: '
                "one of uri, subject_uri, parent_uri, root_uri",
                'backfill.filters[0].record_type: not accepted, found "app.bsky.feed.*"; accepted: '
                "the NSID of a collection (app.bsky.feed.post)",
                "backfill.filters[0].source.dids: unknown key; accepted: type, uris",
                "backfill.filters[0].source.uris: missing; accepted: a list; each: text on one line",
            ],
        ),
        (
            {"record_type": "app.bsky.feed.post", "source": {"type": "x"}},
            ['backfill.filters.source.type: not accepted, found "x"; accepted: one of sqlite, s3, file, inline'],
        ),
        (
            [
                {"record_type": "app.bsky.feed.post", "source": URIS},
                {"record_type": "app.bsky.feed.like", "source": URIS},
            ],
            ["backfill.filters: filter 2: no entry of record_types takes its record_type"],
        ),
    ],
)  # fmt: skip
def test_filters_that_are_refused(filters: object, problems: list[str]) -> None:
    assert sorted(problems_of(filters=filters)) == problems


def test_a_namespace_takes_the_filtered_type() -> None:
    one = {"record_type": "app.bsky.feed.like", "source": URIS}
    assert len(build(record_types=["app.bsky.feed.*"], filters=one).filters) == 1
    broken = problems_of(record_types=["x"], filters=one)
    assert [problem.partition(":")[0] for problem in broken] == ["backfill.record_types[0]"]
