"""What an alert about a failed run says. Where alerts go is not decided here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.run_tags import backfill_of_run

WILL_RETRY_TAG = "dagster/will_retry"


@dataclass(frozen=True)
class RunAlert:
    """One failed run, for people.

    Attributes:
        backfill: its name; None for a run that is no backfill's.
        job: the job, or what stands for a run from the asset catalog.
        partition: partition key; None for a run without.
        run_id: Dagster's.
        reason: what the failed step said, else what Dagster says of the run.
    """

    backfill: str | None
    job: str
    partition: str | None
    run_id: str
    reason: str

    @property
    def text(self) -> str:
        """One line."""
        where = f" of partition {self.partition}" if self.partition else ""
        return f"{self.job}{where} failed: {self.reason} (run {self.run_id})"


def is_retried(run: dg.DagsterRun) -> bool:
    """Whether Dagster starts the run again by itself: then there is nothing to alert anybody for yet."""
    return run.tags.get(WILL_RETRY_TAG, "").lower() == "true"


def run_alert(run: dg.DagsterRun, message: str, steps: Sequence[dg.DagsterEvent]) -> RunAlert:
    """The alert for a failed run.

    Args:
        run: as Dagster knows it.
        message: of its failure event.
        steps: the step failures in it.
    """
    return RunAlert(
        backfill=backfill_of_run(run),
        job="assets" if run.job_name.startswith("__") else run.job_name,
        partition=run.tags.get(names.PARTITION_TAG),
        run_id=run.run_id,
        reason=next(filter(None, map(_said, steps)), message.splitlines()[0] if message else "no reason given"),
    )


def _said(step: dg.DagsterEvent) -> str:
    """What a step's failure says, in one line: the text that was written for people, else the exception's."""
    data = step.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return " ".join(data.user_failure_data.description.split())
    error = data.error.cause or data.error if data.error is not None else None
    return " ".join(error.message.split()) if error is not None else ""
