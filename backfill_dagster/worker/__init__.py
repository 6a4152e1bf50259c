"""The worker: one shard at a time, from the PDS host to committed Parquet and the ledger."""

from backfill_dagster.worker.result import ShardResult
from backfill_dagster.worker.shard import run_shard

__all__ = ["ShardResult", "run_shard"]
