"""The tags of a shard run, told from what Dagster knows of it: its job, its assets, its partition key.

The run coordinator puts them on runs that go through the queue, the ops on those that go round it.
"""

from __future__ import annotations

import dagster as dg

from backfill_dagster.model import Shard
from backfill_dagster.orchestration import names

_ASSET_JOB_PREFIX = "__ASSET_JOB"


def shard_tags(name: str | None, key: str) -> dict[str, str]:
    """Host and backfill of a partition key; nothing for a key that is none.

    A malformed key gets no tags rather than an error: Dagster lets people add any key, and the op says what is wrong
    with it better than a launch that fails.
    """
    try:
        tags = {names.HOST_TAG: Shard.parse(key).host}
    except ValueError:
        return {}
    return tags | ({names.NAME_TAG: name} if name else {})


def missing_tags(run: dg.DagsterRun) -> dict[str, str]:
    """The tags that a shard run should carry and doesn't, a wrong value counting as missing; nothing for other runs."""
    key = run.tags.get(names.PARTITION_TAG)
    if key is None:
        return {}
    name = shard_backfill(run)
    wanted = shard_tags(name, key)
    if wanted and name and not only_checks(run):
        wanted |= page_tag(name)
    return {tag: value for tag, value in wanted.items() if run.tags.get(tag) != value}


def page_tag(name: str) -> dict[str, str]:
    """The tag that shows a shard run on the job's Partitions page, wherever it was launched from."""
    return {names.PARTITION_SET_TAG: names.partition_set(name)}


def only_checks(run: dg.DagsterRun) -> bool:
    """Whether the run makes nothing: its end says nothing about the partition."""
    return bool(run.asset_check_selection) and not run.asset_selection


def shard_backfill(run: dg.DagsterRun) -> str | None:
    """The backfill that a shard run belongs to; a run from the asset catalog has no job of its own."""
    if not run.job_name.startswith(_ASSET_JOB_PREFIX):
        return names.backfill_of_job(run.job_name)
    checked = (check.asset_key for check in run.asset_check_selection or ())
    keys = sorted({*(run.asset_selection or ()), *checked})
    return next((key.path[0] for key in keys if len(key.path) > 1), None)


def backfill_of_run(run: dg.DagsterRun) -> str | None:
    """The backfill that any run belongs to: plans and reports too."""
    kind, _, name = run.job_name.partition("_")
    return name if name and kind in ("plan", "report") else shard_backfill(run)
