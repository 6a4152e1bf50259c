"""From the config's `source` block to the source that it describes. Sources themselves know no config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backfill_dagster.config import sources as blocks
from backfill_dagster.errors import UsageError
from backfill_dagster.sources.base import Source
from backfill_dagster.sources.file import FileSource
from backfill_dagster.sources.inline import InlineSource
from backfill_dagster.sources.sqlite import SqliteSource


def open_source(block: blocks.Source, resolve: Callable[[str], Path]) -> Source:
    """The source of accounts of a config. Touches no file yet: that comes with `rows` and `version`.

    Args:
        block: `config.source`.
        resolve: `config.resolve`, which makes relative paths absolute.

    Raises:
        UsageError: a type that this version doesn't have.
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
    if isinstance(block, blocks.InlineSource):
        return InlineSource(block.dids)
    raise no_s3("source")


def no_s3(key: str) -> UsageError:
    """The refusal of `type: s3` under `key`."""
    return UsageError(
        f"{key}.type s3 is not available in this version yet: copy the objects to a local file and set type: file"
    )
