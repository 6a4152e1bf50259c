"""How runs spent their time, by Dagster's own event log: in the queue, starting, at work, ending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backfill_dagster.orchestration.webserver import FINISHED, Webserver

COUNT = """
query($filter:RunsFilter!){runsOrError(filter:$filter){__typename ...on Runs{count}}}
"""

TIMES = """
query($filter:RunsFilter!,$limit:Int){runsOrError(filter:$filter,limit:$limit){__typename
 ...on Runs{results{runId status stats{__typename ...on RunStatsSnapshot{enqueuedTime launchTime startTime endTime}}
 stepStats{startTime endTime}}}}}
"""


@dataclass(frozen=True)
class RunTimes:
    """Moments of a run that succeeded, seconds since the epoch: the marks in its event log.

    Attributes:
        enqueued: put into the queue.
        launched: taken from the queue; the worker process starts.
        started: the worker has loaded the code location and begins the run (`startTime`).
        first_op: the first op starts.
        last_op: the last op has ended.
        ended: the run has ended (`endTime`).
    """

    enqueued: float
    launched: float
    started: float
    first_op: float
    last_op: float
    ended: float

    @property
    def overhead(self) -> float:
        """Run start to first op, and last op to end: what the promise is about."""
        return (self.first_op - self.started) + (self.ended - self.last_op)

    @property
    def overhead_with_process(self) -> float:
        """The same from the launch on, with the worker process and its loading of the code location."""
        return self.overhead + self.started - self.launched


def count_runs(web: Webserver, backfill_id: str, statuses: Sequence[str] = tuple(FINISHED)) -> int:
    """Runs of a partition backfill in these states, by default those that have ended."""
    answer = web.query(COUNT, filter=_filter(backfill_id, statuses))["runsOrError"]
    return int(answer["count"])


def run_times(web: Webserver, backfill_id: str, limit: int) -> list[RunTimes]:
    """Times of the runs of a partition backfill that succeeded, the first to end first."""
    found = web.query(TIMES, filter=_filter(backfill_id, ["SUCCESS"]), limit=limit)["runsOrError"]["results"]
    return sorted((_times(one) for one in found), key=lambda times: times.ended)


def mean_at_work(runs: Sequence[RunTimes]) -> float:
    """Runs between launch and end at a time, on average."""
    span = max(run.ended for run in runs) - min(run.launched for run in runs)
    return sum(run.ended - run.launched for run in runs) / span


def _filter(backfill_id: str, statuses: Sequence[str]) -> dict[str, Any]:
    return {"tags": [{"key": "dagster/backfill", "value": backfill_id}], "statuses": list(statuses)}


def _times(run: Mapping[str, Any]) -> RunTimes:
    stats, steps = run["stats"], run["stepStats"]
    return RunTimes(
        enqueued=stats["enqueuedTime"],
        launched=stats["launchTime"],
        started=stats["startTime"],
        first_op=min(step["startTime"] for step in steps),
        last_op=max(step["endTime"] for step in steps),
        ended=stats["endTime"],
    )
