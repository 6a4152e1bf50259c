"""The blocks `source` (where the DIDs come from) and `filters` (lists of URIs that narrow the records).

One model per type; only that type's keys are accepted. Opening and reading them is the work of `sources`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from backfill_dagster.config.addresses import FilePath, S3Uri, Url
from backfill_dagster.config.block import Block
from backfill_dagster.config.explain import rule_broken
from backfill_dagster.config.values import Choice, Flag, Nsid, Text

MAX_INLINE = 50_000

FileFormat = Literal["csv", "parquet", "text"]
_SUFFIXES: dict[str, FileFormat] = {".csv": "csv", ".parquet": "parquet", ".txt": "text"}

LocalPath = Annotated[str, FilePath()]
Sql = Annotated[str, Text("a single SELECT statement", lines=True, max_length=20_000)]
Column = Annotated[str, Text("the name of a column", max_length=255)]
Region = Annotated[str, Text("an AWS region", pattern=r"[a-z0-9\-]{2,40}")]
KeepColumns = Annotated[
    tuple[Column, ...],
    Field(
        max_length=32,
        description="More columns of the source, carried into the plan and the reports (a cohort, say).",
        examples=["[cohort]"],
    ),
]
Entry = Annotated[str, Text("text on one line", max_length=2048)]


class _FileKeys(Block):
    path: LocalPath = Field(description="The file.", examples=["data/dids.csv"])
    format: Annotated[FileFormat, Choice(("csv", "parquet", "text"))] | None = Field(
        default=None,
        description="What the file holds; `text` is one entry a line. Null: by the suffix (.csv, .parquet, .txt).",
        examples=["csv"],
    )
    column: Column | None = Field(
        default=None,
        description="The column to read. Null: the column `did` (`uri` in a filter), or the only one. Text files have "
        "none.",
        examples=["user_did"],
    )
    header: Annotated[bool, Flag()] = Field(
        default=True,
        description="Whether the first line of a CSV file names its columns.",
        examples=["false"],
    )

    @field_validator("format", mode="after")
    @classmethod
    def _format_is_known(cls, value: FileFormat | None, info: ValidationInfo) -> FileFormat | None:
        path = info.data.get("path")
        if value is None and path is not None and _format_by_suffix(path) is None:
            raise rule_broken(
                "not given, and the path's suffix is none of .csv, .parquet and .txt: set csv, parquet or text"
            )
        return value

    @field_validator("column", mode="after")
    @classmethod
    def _text_has_no_columns(cls, value: str | None, info: ValidationInfo) -> str | None:
        return _not_of_a_text_file(value, info)

    @property
    def file_format(self) -> FileFormat:
        """The format, by the suffix where the YAML doesn't say."""
        return self.format or _format_by_suffix(self.path) or "text"


class _S3Keys(Block):
    path: Annotated[str, S3Uri()] = Field(
        description="One object, a prefix that ends in a slash, or a glob (`**` goes through slashes).",
        examples=["s3://my-bucket/dids/*.parquet"],
    )
    format: Annotated[Literal["csv", "parquet"], Choice(("csv", "parquet"))] | None = Field(
        default=None,
        description="What the objects hold. Null: by their suffix (.csv, .csv.gz, .tsv, .parquet).",
        examples=["parquet"],
    )
    column: Column | None = Field(
        default=None,
        description="The column to read. Null: the column `did` (`uri` in a filter), or the only one.",
        examples=["did"],
    )
    query: Sql | None = Field(
        default=None,
        description="One SELECT of DuckDB's SQL over the objects, which are the table `source`; `column` is then one "
        "of its result. The values of CSV are text.",
        examples=["SELECT did FROM source WHERE cohort = 'a'"],
    )
    region: Region | None = Field(
        default=None, description="AWS region. Null: from the AWS environment.", examples=["us-west-2"]
    )
    endpoint_url: Annotated[str, Url(may_have_path=False)] | None = Field(
        default=None,
        description="Address of another S3 service. Null: from the AWS environment.",
        examples=["http://127.0.0.1:5001"],
    )
    header: Annotated[bool, Flag()] = Field(
        default=True, description="Whether the first line of CSV objects names the columns.", examples=["false"]
    )


class SqliteSource(Block):
    """A SQLite database, opened read-only."""

    type: Literal["sqlite"] = Field(description="A SQLite database, opened read-only.", examples=["sqlite"])
    path: LocalPath = Field(description="The database file.", examples=["data/dids.sqlite"])
    query: Sql = Field(
        default="SELECT did FROM dids",
        description="Any single SELECT; the DIDs are its column `did`, or its only column.",
        examples=["SELECT did, cohort FROM users"],
    )
    keep_columns: KeepColumns = ()


class S3Source(_S3Keys):
    """CSV or Parquet on S3."""

    type: Literal["s3"] = Field(description="CSV or Parquet on S3.", examples=["s3"])
    keep_columns: KeepColumns = ()


class FileSource(_FileKeys):
    """A local CSV, Parquet or plain text file."""

    type: Literal["file"] = Field(description="A local CSV, Parquet or plain text file.", examples=["file"])
    keep_columns: KeepColumns = ()

    @field_validator("keep_columns", mode="after")
    @classmethod
    def _text_has_one_column(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return _not_of_a_text_file(value, info)


class InlineSource(Block):
    """DIDs written into the YAML."""

    type: Literal["inline"] = Field(description="DIDs in the YAML itself.", examples=["inline"])
    dids: Annotated[tuple[Entry, ...], Field(max_length=MAX_INLINE)] = Field(
        description="The DIDs (or handles).", examples=["[did:plc:z72i7hdynmk6r22z27h6tvur]"]
    )
    keep_columns: KeepColumns = ()

    @field_validator("keep_columns", mode="after")
    @classmethod
    def _has_no_columns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            raise rule_broken("a list in the YAML has no other columns to keep; use a sqlite or file source")
        return value


Source = Annotated[SqliteSource | S3Source | FileSource | InlineSource, Field(discriminator="type")]


class SqliteUriList(Block):
    """URIs in a SQLite database."""

    type: Literal["sqlite"] = Field(description="A SQLite database, opened read-only.", examples=["sqlite"])
    path: LocalPath = Field(description="The database file.", examples=["data/uris.sqlite"])
    query: Sql = Field(
        default="SELECT uri FROM uris",
        description="Any single SELECT; the URIs are its column `uri`, or its only column.",
        examples=["SELECT uri FROM posts"],
    )


class S3UriList(_S3Keys):
    """URIs in CSV or Parquet on S3."""

    type: Literal["s3"] = Field(description="CSV or Parquet on S3.", examples=["s3"])


class FileUriList(_FileKeys):
    """URIs in a local file."""

    type: Literal["file"] = Field(description="A local CSV, Parquet or plain text file.", examples=["file"])


class InlineUriList(Block):
    """URIs written into the YAML."""

    type: Literal["inline"] = Field(description="URIs in the YAML itself.", examples=["inline"])
    uris: Annotated[tuple[Entry, ...], Field(min_length=1, max_length=MAX_INLINE)] = Field(
        description="The URIs.",
        examples=["[at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/3l6oveex3ii2l]"],
    )


UriList = Annotated[SqliteUriList | S3UriList | FileUriList | InlineUriList, Field(discriminator="type")]

Match = Literal["uri", "subject_uri", "parent_uri", "root_uri"]


class Filter(Block):
    """Keeps only those records of one type that a list of URIs names."""

    record_type: Annotated[str, Nsid()] = Field(
        description="The collection that is narrowed; an entry of `record_types` has to take it.",
        examples=["app.bsky.feed.like"],
    )
    match: Annotated[Match, Choice(("uri", "subject_uri", "parent_uri", "root_uri"))] = Field(
        default="uri",
        description="Which URI of the record has to be in the list: its own, its subject's (likes, reposts), or a "
        "reply's parent's or root's.",
        examples=["subject_uri"],
    )
    source: UriList = Field(description='The list of URIs; an empty one is an error, never "drop all".')


def _format_by_suffix(path: str) -> FileFormat | None:
    return _SUFFIXES.get(PurePosixPath(path).suffix.lower())


_Value = TypeVar("_Value")


def _not_of_a_text_file(value: _Value, info: ValidationInfo) -> _Value:
    data = info.data
    format_ = data.get("format") or _format_by_suffix(data.get("path", ""))
    if value and format_ == "text":
        raise rule_broken("a text file has no columns; it has one entry a line")
    return value
