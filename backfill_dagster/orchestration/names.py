"""The names that Dagster shows: one place for the naming contract of `docs/architecture.md`.

Text in, text out: no definition is built here, no YAML is read. The names are a contract: dashboards, scripts and
the history of an instance hang on them.
"""

from __future__ import annotations

from collections.abc import Iterable

from backfill_dagster.config.record_types import asset_name

NAME_TAG = "backfill/name"
"""Run tag with the backfill's name; the queue limits a backfill's shard runs to its `max_concurrent_pds` by it."""

HOST_TAG = "backfill/pds_host"
"""Run tag with the PDS host of a shard run; the queue lets one run per value through."""

PARTITION_TAG = "dagster/partition"
"""Dagster's own tag that carries a run's partition key."""

PARTITION_SET_TAG = "dagster/partition_set"
"""Dagster's own tag by which a job's Partitions page finds its runs."""

KIND_TAG = "backfill/kind"
"""Tag of jobs and their runs: what a run is for (`plan`, `shard`, `report`)."""

LAUNCH_TAG = "backfill/launch"
"""Tag of a plan's run with the value `pending`: when it has gone well, every shard with pending DIDs is launched."""

RETRY_AFTER_TAG = "backfill/retry_after"
"""Tag of a run whose host stopped answering: when trying again makes sense, ISO 8601 UTC."""

DID_LIST = "did_list"
PDS_NETWORK = "pds_network"
SHARD_PLAN = "shard_plan"
REPO_OUTCOMES = "repo_outcomes"
COVERAGE_REPORT = "coverage_report"


def plan_job(name: str) -> str:
    """The job that plans a backfill."""
    return f"plan_{name}"


def backfill_job(name: str) -> str:
    """The partitioned job that runs a backfill's shards."""
    return f"backfill_{name}"


def report_job(name: str) -> str:
    """The job that writes a backfill's coverage report."""
    return f"report_{name}"


def resume_schedule(name: str) -> str:
    """The schedule that launches shards with pending DIDs."""
    return f"resume_{name}"


def refresh_schedule(name: str) -> str:
    """The schedule that plans again and fetches what is new."""
    return f"refresh_{name}"


def source_sensor(name: str) -> str:
    """The sensor that plans when the list of DIDs has changed."""
    return f"source_changed_{name}"


def shards_sensor(name: str) -> str:
    """The sensor that registers partitions, and launches what a plan asks to."""
    return f"new_shards_{name}"


def plan_op(name: str) -> str:
    """The op of `plan_<name>`, which takes its run config."""
    return f"{name}__{SHARD_PLAN}"


def partition_set(name: str) -> str:
    """What Dagster calls the backfill job's partitions, in GraphQL and in the run tag `dagster/partition_set`."""
    return f"{backfill_job(name)}_partition_set"


def partitions(name: str) -> str:
    """The dynamic partitions that mirror a backfill's plan."""
    return f"did_shards__{name}"


def source_resource(name: str) -> str:
    """Resource key of a backfill's list of DIDs."""
    return f"{name}__source"


def state_resource(name: str) -> str:
    """Resource key of a backfill's config and state."""
    return f"{name}__backfill"


def records_asset(entry: str) -> str:
    """Asset name of one entry of `record_types`; op output name too, hence without dots and hyphens.

    >>> records_asset("app.bsky.graph.*")
    'app_bsky_graph_all'
    """
    return asset_name(entry)


def shard_assets(record_types: Iterable[str]) -> list[str]:
    """Names of a shard's assets: one per entry of `record_types`, and the outcomes."""
    return [*map(records_asset, record_types), REPO_OUTCOMES]


def backfill_of_job(job: str) -> str | None:
    """The backfill whose shards a job runs, None when it is another kind of job."""
    prefix = backfill_job("")
    return job.removeprefix(prefix) if job.startswith(prefix) else None


def node_names(name: str) -> set[str]:
    """Names of a backfill's jobs, graphs and ops, which Dagster wants to be unique over the whole code location."""
    jobs = {plan_job(name), backfill_job(name), report_job(name)}
    ops = {"shard", "load_shard", "fetch_repos", "check_shard", SHARD_PLAN, COVERAGE_REPORT}
    return jobs | {f"{name}__{op}" for op in ops}
