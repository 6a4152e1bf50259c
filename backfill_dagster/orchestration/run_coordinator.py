"""The run queue's manners: one run per PDS host at a time, and no more shard runs of a backfill than its YAML allows.

Loaded by webserver, daemon and CLI (`run_coordinator` in dagster.yaml), so it imports little.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterRun, QueuedRunCoordinator
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import RunQueueConfig

from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.config_folder import Stamp, config_folder, folder_stamp, load_configs
from backfill_dagster.orchestration.run_tags import missing_tags

Limit = Mapping[str, Any]

HOST_LIMIT: Limit = {"key": names.HOST_TAG, "limit": 1, "value": {"applyLimitPerUniqueValue": True}}

_logger = logging.getLogger(__name__)


class PdsHostRunCoordinator(QueuedRunCoordinator[dg.DagsterInstance]):
    """Dagster's queue, with the host's tag on every shard run and the limits of the YAML files."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stamp: Stamp | None = None
        self._limits: Sequence[Limit] = ()

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Tag the run by its partition key, then queue it.

        Runs from the asset catalog, and of `dagster job launch`, don't get a job's own tags per partition.
        """
        run = context.dagster_run
        tags = missing_tags(run)
        if tags:
            self._instance.add_run_tags(run.run_id, tags)
        return super().submit_run(context)

    def get_run_queue_config(self) -> RunQueueConfig:
        """The queue's limits: dagster.yaml's, and `max_concurrent_pds` of every config; asked at each pass."""
        config = super().get_run_queue_config()
        limits = [*config.tag_concurrency_limits]
        limits += _shared(self._config_limits(), _shards_at_once(limits))
        if not any(limit["key"] == names.HOST_TAG for limit in limits):
            limits.append(HOST_LIMIT)
        return config._replace(tag_concurrency_limits=limits)

    def _config_limits(self) -> Sequence[Limit]:
        """Limits of the YAML files, read again only when one has changed."""
        folder = config_folder()
        stamp = folder_stamp(folder)
        if stamp != self._stamp:
            self._stamp, self._limits = stamp, backfill_limits(folder)
        return self._limits


def _shards_at_once(limits: Sequence[Limit]) -> int | None:
    """The limit of dagster.yaml on shard runs of all backfills together, if it has one."""
    return next((limit["limit"] for limit in limits if limit["key"] == names.NAME_TAG and "value" not in limit), None)


def _shared(limits: Sequence[Limit], at_once: int | None) -> list[Limit]:
    """The backfills' own limits, so that none of several takes the last place for shard runs.

    The queue is first come, first served: else hundreds of one backfill's shards would keep all others out for days.
    """
    if at_once is None or at_once < 2 or len(limits) < 2:
        return [*limits]
    return [{**limit, "limit": min(limit["limit"], at_once - 1)} for limit in limits]


def backfill_limits(folder: Path) -> list[Limit]:
    """One limit per readable config of the folder: the runs of its shards at a time."""
    limits: list[Limit] = []
    for loaded in load_configs(folder):
        if loaded.config is None:
            _logger.warning("no limit of runs from a broken config: %s", loaded.error)
            continue
        limits.append(
            {
                "key": names.NAME_TAG,
                "value": loaded.config.name,
                "limit": loaded.config.processing.max_concurrent_pds,
            }
        )
    return limits
