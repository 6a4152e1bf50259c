"""A client of Dagster's webserver: launch jobs and partitions, watch runs, over its GraphQL.

Blocking, for the terminal and for tests. Starting the webserver is `live`'s business.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from backfill_dagster.errors import BackfillError
from backfill_dagster.orchestration import graphql_documents as documents
from backfill_dagster.orchestration import names

REPOSITORY = "__repository__"
LOCATION = "backfill_dagster"

FINISHED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})

AT_WORK = ("STARTING", "STARTED", "CANCELING")

RUNS_MAX = 1000
"""Runs of one answer; a list longer than that is cut to the newest."""


@dataclass(frozen=True)
class RunInfo:
    """A run as Dagster tells it; times are seconds since the epoch, None before they are known."""

    run_id: str
    job: str
    status: str
    tags: Mapping[str, str]
    started_at: float | None
    ended_at: float | None

    @property
    def partition_key(self) -> str | None:
        """The run's partition."""
        return self.tags.get(names.PARTITION_TAG)

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status in FINISHED


class Webserver:
    """One webserver and one code location on it.

    Args:
        url: `http://127.0.0.1:3000`.
        location: name of the code location.
        timeout_seconds: of one question.
        monotonic: seconds.
        sleep: waits, seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        location: str = LOCATION,
        timeout_seconds: float = 60,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._location = location
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._sleep = sleep

    def query(self, document: str, **variables: Any) -> dict[str, Any]:
        """Ask; returns the answer's `data`.

        Raises:
            BackfillError: no answer, or one that says the question failed.
        """
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=self._timeout_seconds)
        try:
            body = json.dumps({"query": document, "variables": variables})
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BackfillError(f"the Dagster webserver at {self.url} does not answer: {error}") from None
        finally:
            connection.close()
        if answer.get("errors"):
            raise BackfillError(f"Dagster refuses: {answer['errors'][0].get('message')}")
        data: dict[str, Any] = answer["data"]
        return data

    def location_error(self) -> str | None:
        """Why the code location can't be used yet; None when it is loaded."""
        entry = self.query(documents.LOCATION, name=self._location)["workspaceLocationEntryOrError"]
        if entry is None or entry["__typename"] != "WorkspaceLocationEntry":
            return f"code location {self._location} is not in the workspace"
        if entry["loadStatus"] != "LOADED":
            return f"code location {self._location} is loading"
        loaded = entry["locationOrLoadError"] or {}
        if loaded.get("__typename") == "RepositoryLocation":
            return None
        return f"code location {self._location} did not load: {loaded.get('message')}"

    def reload(self) -> None:
        """Load the code location again: new and changed YAML files become jobs."""
        self.query(documents.RELOAD, name=self._location)

    def launch_job(
        self, job: str, *, tags: Mapping[str, str] | None = None, run_config: Mapping[str, Any] | None = None
    ) -> str:
        """Launch a job through the queue; returns the run id."""
        answer = self.query(
            documents.LAUNCH_RUN,
            params={
                "selector": {"jobName": job, **self._repository()},
                "runConfigData": dict(run_config or {}),
                "executionMetadata": {"tags": _tag_list(tags or {})},
            },
        )["launchRun"]
        return str(_expect(answer, "LaunchRunSuccess")["run"]["runId"])

    def launch_partitions(self, job: str, keys: Sequence[str] | None = None, *, only_failed: bool = False) -> str:
        """Launch a partition backfill of a job, as its Partitions page does; returns Dagster's backfill id.

        Args:
            job: a partitioned job.
            keys: default: all partitions.
            only_failed: of these, the ones whose last run failed.
        """
        return self._launch_backfill(
            selector={"partitionSetName": f"{job}_partition_set", "repositorySelector": self._repository()},
            partitionNames=list(self.partition_keys(job) if keys is None else keys),
            fromFailure=only_failed,
        )

    def launch_assets(self, assets: Iterable[Sequence[str]], keys: Sequence[str]) -> str:
        """Launch an asset backfill, as the asset catalog does; returns Dagster's backfill id."""
        return self._launch_backfill(
            assetSelection=[{"path": list(path)} for path in assets], partitionNames=list(keys)
        )

    def _launch_backfill(self, **params: Any) -> str:
        answer = self.query(documents.LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
        return str(_expect(answer, "LaunchBackfillSuccess")["backfillId"])

    def partition_keys(self, job: str) -> list[str]:
        """The partitions of a job."""
        return list(self.partition_statuses(job))

    def partition_statuses(self, job: str) -> dict[str, str | None]:
        """Partition key -> status of its last run, None for one that never ran: what the Partitions page shows."""
        answer = self.query(documents.PARTITION_STATUSES, repository=self._repository(), name=f"{job}_partition_set")[
            "partitionSetOrError"
        ]
        found = _expect(answer, "PartitionSet")
        keys = [one["name"] for one in _expect(found["partitionsOrError"], "Partitions")["results"]]
        statuses = _expect(found["partitionStatusesOrError"], "PartitionStatuses")["results"]
        known = {one["partitionName"]: one["runStatus"] for one in statuses}
        return {key: known.get(key) for key in keys}

    def asset_partitions(self, path: Sequence[str]) -> dict[str, list[str]]:
        """An asset's partitions by state: materialized, failed, unmaterialized, materializing."""
        answer = self.query(documents.ASSET_PARTITIONS, key={"path": list(path)})["assetNodeOrError"]
        return {
            name.removesuffix("Partitions"): list(keys)
            for name, keys in _expect(answer, "AssetNode")["assetPartitionStatuses"].items()
            if name != "__typename"
        }

    def backfill_status(self, backfill_id: str) -> str:
        """Status of a partition or asset backfill: REQUESTED, COMPLETED_SUCCESS, ..."""
        answer = self.query(documents.BACKFILL, id=backfill_id)["partitionBackfillOrError"]
        return str(_expect(answer, "PartitionBackfill")["status"])

    def runs(
        self,
        *,
        job: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_ids: Sequence[str] | None = None,
        statuses: Sequence[str] | None = None,
    ) -> list[RunInfo]:
        """Runs, the newest first, at most `RUNS_MAX`."""
        wanted: dict[str, Any] = {"tags": _tag_list(tags or {})}
        if job is not None:
            wanted["pipelineName"] = job
        if run_ids is not None:
            wanted["runIds"] = list(run_ids)
        if statuses is not None:
            wanted["statuses"] = list(statuses)
        answer = self.query(documents.RUNS, filter=wanted, limit=RUNS_MAX)["runsOrError"]
        return [_run_info(one) for one in _expect(answer, "Runs")["results"]]

    def wait_for_run(self, run_id: str, *, timeout_seconds: float) -> RunInfo:
        """Wait until a run has ended.

        Raises:
            BackfillError: it hasn't in time.
        """
        return self.wait_for_runs(lambda: self.runs(run_ids=[run_id]), count=1, timeout_seconds=timeout_seconds)[0]

    def wait_for_backfill(
        self,
        backfill_id: str,
        *,
        count: int,
        timeout_seconds: float,
        on_runs: Callable[[list[RunInfo]], None] = lambda runs: None,
    ) -> list[RunInfo]:
        """Wait until the `count` runs of a backfill have ended; its own status follows up to 30 s later.

        Raises:
            BackfillError: they haven't in time.
        """
        return self.wait_for_runs(
            lambda: self.runs(tags={"dagster/backfill": backfill_id}),
            count=count,
            timeout_seconds=timeout_seconds,
            on_runs=on_runs,
        )

    def wait_for_runs(
        self,
        find: Callable[[], list[RunInfo]],
        *,
        count: int,
        timeout_seconds: float,
        on_runs: Callable[[list[RunInfo]], None] = lambda runs: None,
    ) -> list[RunInfo]:
        """Ask `find` until it knows `count` runs and all have ended; `on_runs` sees each answer.

        Raises:
            BackfillError: they haven't in time; says how far they are.
        """
        deadline = self._monotonic() + timeout_seconds
        while True:
            runs = find()
            on_runs(runs)
            if len(runs) >= count and all(run.is_finished for run in runs):
                return runs
            if self._monotonic() >= deadline:
                states = ", ".join(sorted(run.status for run in runs)) or "none started"
                raise BackfillError(
                    f"{count} runs have not ended after {timeout_seconds:g} s ({states}); {self.url} shows why"
                )
            self._sleep(0.5)

    def terminate(self, run_ids: Sequence[str]) -> None:
        """Ask runs to stop: they commit what is in hand and let their leases go."""
        if run_ids:
            self.query(documents.TERMINATE, ids=list(run_ids))

    def _repository(self) -> dict[str, str]:
        return {"repositoryName": REPOSITORY, "repositoryLocationName": self._location}


def _expect(answer: Mapping[str, Any], typename: str) -> Mapping[str, Any]:
    if answer["__typename"] != typename:
        errors = "; ".join(error["message"] for error in answer.get("errors", ()))
        raise BackfillError(f"Dagster refuses: {answer.get('message') or errors or answer['__typename']}")
    return answer


def _run_info(run: Mapping[str, Any]) -> RunInfo:
    return RunInfo(
        run_id=run["runId"],
        job=run["jobName"],
        status=run["status"],
        tags={tag["key"]: tag["value"] for tag in run["tags"]},
        started_at=run["startTime"],
        ended_at=run["endTime"],
    )


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]
