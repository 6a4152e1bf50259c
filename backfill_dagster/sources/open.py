"""From the config's `source` block to the source that it describes. Sources themselves know no config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backfill_dagster.aws import AwsPlace
from backfill_dagster.config import sources as blocks
from backfill_dagster.sources.base import Source
from backfill_dagster.sources.file import FileSource
from backfill_dagster.sources.inline import InlineSource
from backfill_dagster.sources.s3 import S3Source
from backfill_dagster.sources.sqlite import SqliteSource


def open_source(block: blocks.Source, resolve: Callable[[str], Path]) -> Source:
    """The source of accounts of a config. Touches no file yet: that comes with `rows` and `version`.

    Args:
        block: `config.source`.
        resolve: `config.resolve`, which makes relative paths absolute.
    """
    if isinstance(block, blocks.SqliteSource):
        return SqliteSource(resolve(block.path), block.query, keep_columns=block.keep_columns)
    if isinstance(block, blocks.FileSource):
        return FileSource(
            resolve(block.path),
            format=block.file_format,
            column=block.column,
            header=block.header,
            keep_columns=block.keep_columns,
        )
    if isinstance(block, blocks.S3Source):
        return S3Source(
            block.path,
            AwsPlace(block.region, block.endpoint_url),
            format=block.format,
            column=block.column,
            query=block.query,
            header=block.header,
            keep_columns=block.keep_columns,
        )
    return InlineSource(block.dids)
