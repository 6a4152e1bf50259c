"""Keeps Dagster's dynamic partitions in step with plans made from the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence


def register_partitions(name: str, keys: Sequence[str]) -> None:
    """Register a plan's partitions with the Dagster instance of DAGSTER_HOME; nothing to do without one.

    Dagster is imported only then: it costs more than a small plan does.
    """
    if not os.environ.get("DAGSTER_HOME"):
        return
    from backfill_dagster.orchestration import register_with_local_instance

    register_with_local_instance(name, keys)
