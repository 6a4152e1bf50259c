"""The blocks about what is left behind and how it is watched: `storage`, `records`, `state`, `monitoring`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from backfill_dagster.config.addresses import StatePath, Url
from backfill_dagster.config.block import Block
from backfill_dagster.config.sources import LocalPath, Region
from backfill_dagster.config.values import Choice, Flag, Number, Text, WholeNumber

Compression = Literal["zstd", "snappy", "gzip", "lz4", "none"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class SqliteStorage(Block):
    """The ledger in an embedded SQLite database."""

    type: Literal["sqlite"] = Field(default="sqlite", description="An embedded SQLite database.", examples=["sqlite"])
    path: LocalPath | None = Field(
        default=None,
        description="The ledger's file, on a local disk. Null: `<state.path>/ledger.sqlite`; a state on S3 needs it "
        "set.",
        examples=["data/ledger.sqlite"],
    )


class DynamodbStorage(Block):
    """The ledger in a DynamoDB table."""

    type: Literal["dynamodb"] = Field(description="A DynamoDB table.", examples=["dynamodb"])
    table_name: Annotated[str, Text("3 to 255 of a-z, A-Z, 0-9, _, - and .", pattern=r"[A-Za-z0-9_.\-]{3,255}")] = (
        Field(
            default="backfill_results",
            description="The table; several backfills can share one.",
            examples=["my_ledger"],
        )
    )
    region: Region | None = Field(
        default=None, description="AWS region. Null: from the AWS environment.", examples=["us-west-2"]
    )
    endpoint_url: Annotated[str, Url()] | None = Field(
        default=None,
        description="Address of another DynamoDB service. Null: from the AWS environment.",
        examples=["http://127.0.0.1:8100"],
    )
    create_table: Annotated[bool, Flag()] = Field(
        default=False, description="Whether a missing table is created.", examples=["true"]
    )


Storage = Annotated[SqliteStorage | DynamodbStorage, Field(discriminator="type")]


class Records(Block):
    """How the Parquet is written."""

    raw: Annotated[Literal["json", "cbor", "none"], Choice(("json", "cbor", "none"))] = Field(
        default="json",
        description="The whole record beside the typed columns: as JSON, as the block's own bytes (a reader can "
        "check them against the CID), or not at all.",
        examples=["cbor"],
    )
    compression: Annotated[Compression, Choice(("zstd", "snappy", "gzip", "lz4", "none"))] = Field(
        default="zstd", description="The Parquet compression.", examples=["snappy"]
    )


class State(Block):
    """Where the plan, the records, the log and the reports are kept."""

    path: Annotated[str, StatePath()] | None = Field(
        default=None,
        description="A folder or `s3://bucket/prefix`, of this backfill alone. Null: `data/<name>`.",
        examples=["data/study_users"],
    )
    region: Region | None = Field(
        default=None, description="AWS region of a state on S3. Null: from the AWS environment.", examples=["us-west-2"]
    )
    endpoint_url: Annotated[str, Url(may_have_path=False)] | None = Field(
        default=None,
        description="Address of another S3 service for a state on S3. Null: from the AWS environment.",
        examples=["http://127.0.0.1:5001"],
    )


class Monitoring(Block):
    """Metrics, logs and alerts."""

    prometheus_port: Annotated[int, WholeNumber(1, 65_535)] = Field(
        default=8000, description="Port of the metrics for Prometheus.", examples=["9464"]
    )
    log_level: Annotated[LogLevel, Choice(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), any_case=True)] = Field(
        default="INFO", description="The least important messages that are logged.", examples=["DEBUG"]
    )
    alert_on_failure: Annotated[bool, Flag()] = Field(
        default=True, description="Whether failed runs send an alert.", examples=["false"]
    )
    alert_webhook_env: Annotated[
        str, Text("the name of an environment variable", pattern=r"[A-Za-z_][A-Za-z0-9_]{0,127}")
    ] = Field(
        default="BACKFILL_ALERT_WEBHOOK",
        description="The environment variable that holds the address alerts are sent to; the address itself is a "
        "secret and doesn't go into the YAML.",
        examples=["TEAM_WEBHOOK"],
    )
    max_error_rate: Annotated[float, Number(0, 1)] = Field(
        default=0.05, description="Share of failed DIDs above which a shard's asset check fails.", examples=["0.2"]
    )
