"""Runs as Dagster's instance knows them, without anything that runs."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test


def a_run(
    instance: dg.DagsterInstance,
    job: str,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.NOT_STARTED,
    tags: Mapping[str, str] | None = None,
) -> dg.DagsterRun:
    """A run of a job of a code server nobody asks."""
    location = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name="backfill_dagster")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)
    return create_run_for_test(instance, job_name=job, tags=dict(tags or {}), status=status, remote_job_origin=origin)
