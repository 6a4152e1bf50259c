"""Everything Dagster: thin definitions over `worker`, `plan` and `report`, and what it takes to run them locally."""

from __future__ import annotations

from backfill_dagster.orchestration.partitions import register_partitions, register_with_local_instance

__all__ = ["register_partitions", "register_with_local_instance"]
