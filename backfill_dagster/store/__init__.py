"""Objects with put-if-absent, in a local folder; the marker that says whose state they are."""

from backfill_dagster.store.base import ObjectInfo, ObjectStore
from backfill_dagster.store.local import LocalStore
from backfill_dagster.store.open import open_store
from backfill_dagster.store.probe import check_put_if_absent
from backfill_dagster.store.state_marker import StateMarker, ensure_state, has_content, read_state, restore_state

__all__ = [
    "LocalStore",
    "ObjectInfo",
    "ObjectStore",
    "StateMarker",
    "check_put_if_absent",
    "ensure_state",
    "has_content",
    "open_store",
    "read_state",
    "restore_state",
]
