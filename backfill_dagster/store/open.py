"""From a config's `state.path` to its store. Stores themselves know no config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backfill_dagster.aws import AwsPlace
from backfill_dagster.store.base import ObjectStore
from backfill_dagster.store.local import LocalStore

if TYPE_CHECKING:
    from backfill_dagster.config import BackfillConfig


def open_store(config: BackfillConfig) -> ObjectStore:
    """The store under the config's `state.path`. Touches no disk and asks no server yet."""
    root = config.state_path
    if isinstance(root, Path):
        return LocalStore(root)
    # Imported here: what it needs takes a while to import, and most states are folders.
    from backfill_dagster.store.s3 import S3Store

    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix.strip("/"), AwsPlace(config.state.region, config.state.endpoint_url))
