"""The list of AT URIs that a filter keeps records by; read the way sources of accounts are.

What a filter does with its list belongs to `records`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backfill_dagster.aws import AwsPlace
from backfill_dagster.config import sources as blocks
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.base import Source
from backfill_dagster.sources.file import FileSource
from backfill_dagster.sources.inline import InlineSource
from backfill_dagster.sources.s3 import S3Source
from backfill_dagster.sources.sqlite import SqliteSource

_COLUMN = "uri"
_STARTS = ("at://", "did:")
"""What `match: subject_uri` looks up in a follow or block is a DID."""


def load_uris(block: blocks.UriList, resolve: Callable[[str], Path]) -> frozenset[str]:
    """Read a filter's list into memory; blank values are left out.

    Args:
        block: `source` of one of `config.filters`.
        resolve: `config.resolve`, which makes relative paths absolute.

    Raises:
        SourceError: the list can't be read, is empty, or holds neither AT URIs nor DIDs: that would drop all.
    """
    source = _open(block, resolve)
    uris = frozenset(row.text for row in source.rows() if row.text)
    if not uris:
        raise SourceError(f"filters: {source.describe()} is empty, which would drop every record; fill it")
    if not any(uri.startswith(_STARTS) for uri in uris):
        raise SourceError(
            f"filters: {source.describe()} holds no AT URI (at://...) but {min(uris)[:80]!r}; name the right column"
        )
    return uris


def _open(block: blocks.UriList, resolve: Callable[[str], Path]) -> Source:
    if isinstance(block, blocks.SqliteUriList):
        return SqliteSource(resolve(block.path), block.query, default_column=_COLUMN)
    if isinstance(block, blocks.FileUriList):
        return FileSource(
            resolve(block.path),
            format=block.file_format,
            column=block.column,
            header=block.header,
            default_column=_COLUMN,
        )
    if isinstance(block, blocks.S3UriList):
        return S3Source(
            block.path,
            AwsPlace(block.region, block.endpoint_url),
            format=block.format,
            column=block.column,
            query=block.query,
            header=block.header,
            default_column=_COLUMN,
        )
    return InlineSource(block.uris)
