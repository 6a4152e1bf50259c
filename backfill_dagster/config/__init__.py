"""One backfill's YAML: read, validated, with all defaults, or every problem in it at once."""

from __future__ import annotations

from backfill_dagster.config.availability import unavailable
from backfill_dagster.config.blocks import Identity, Processing, Quota, Schedule, Timeouts, TimeRange
from backfill_dagster.config.load import LoadedConfig, is_config_file, load_config, load_config_folder, load_configs
from backfill_dagster.config.models import BackfillConfig
from backfill_dagster.config.outputs import DynamodbStorage, Monitoring, Records, SqliteStorage, State
from backfill_dagster.config.problems import Problem
from backfill_dagster.config.sources import (
    FileSource,
    FileUriList,
    Filter,
    InlineSource,
    InlineUriList,
    S3Source,
    S3UriList,
    SqliteSource,
    SqliteUriList,
)
from backfill_dagster.config.template import starter_yaml

__all__ = [
    "BackfillConfig",
    "DynamodbStorage",
    "FileSource",
    "FileUriList",
    "Filter",
    "Identity",
    "InlineSource",
    "InlineUriList",
    "LoadedConfig",
    "Monitoring",
    "Problem",
    "Processing",
    "Quota",
    "Records",
    "S3Source",
    "S3UriList",
    "Schedule",
    "SqliteSource",
    "SqliteStorage",
    "SqliteUriList",
    "State",
    "TimeRange",
    "Timeouts",
    "is_config_file",
    "load_config",
    "load_config_folder",
    "load_configs",
    "starter_yaml",
    "unavailable",
]
