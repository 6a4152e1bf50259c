"""From a config's `state.path` to its store. Stores themselves know no config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backfill_dagster.errors import UsageError
from backfill_dagster.store.base import ObjectStore
from backfill_dagster.store.local import LocalStore

if TYPE_CHECKING:
    from backfill_dagster.config import BackfillConfig


def open_store(config: BackfillConfig) -> ObjectStore:
    """The store under the config's `state.path`. Touches no disk yet.

    Raises:
        UsageError: a kind of store that this version doesn't have.
    """
    root = config.state_path
    if isinstance(root, Path):
        return LocalStore(root)
    raise UsageError(f"state.path {root}: only local folders are available in this version")
