"""Sensors over the whole code location: failed runs, the folder of configs, reports that follow their shards."""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg

from backfill_dagster.config import BackfillConfig
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.alerts import is_retried, run_alert
from backfill_dagster.orchestration.broken import CHECK, broken_keys, verdict
from backfill_dagster.orchestration.config_folder import Stamp, folder_stamp, read_folder

RUN_FAILED = "run_failed"
CONFIG_FOLDER = "config_folder"
COVERAGE_REPORTS = "coverage_reports"

FOLDER_SECONDS = 30
REPORTS_SECONDS = 30

_logger = logging.getLogger(__name__)


def run_failed(configs: Sequence[BackfillConfig]) -> dg.SensorDefinition:
    """The alert for a run that failed and that Dagster doesn't start again by itself."""
    silent = {config.name for config in configs if not config.monitoring.alert_on_failure}

    @dg.run_failure_sensor(
        name=RUN_FAILED,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=FOLDER_SECONDS,
        description="Says which run failed and why, once nothing starts it again by itself. Not for configs with "
        "`monitoring.alert_on_failure: false`.",
    )
    def on_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        if is_retried(context.dagster_run):
            return dg.SkipReason(f"run {context.dagster_run.run_id} is started again by itself")
        alert = run_alert(context.dagster_run, context.failure_event.message or "", context.get_step_failure_events())
        if alert.backfill in silent:
            return dg.SkipReason(f"{alert.backfill} wants no alerts (monitoring.alert_on_failure): {alert.text}")
        context.log.error(alert.text)
        _logger.error("%s", alert.text, extra={"fields": {"alert": "run_failed", "run_id": alert.run_id}})
        return None

    return on_failure


def config_folder_sensor(
    folder: Path, loaded: Stamp, errors: Mapping[Path, str], environ: Mapping[str, str] | None = None
) -> dg.SensorDefinition:
    """Says when the folder is another than the code location has loaded, and keeps the broken files' checks.

    Args:
        folder: of the YAML files.
        loaded: its stamp as it was loaded.
        errors: the broken files as they were loaded.
        environ: environment variables; default: the process's.
    """
    keys = broken_keys(errors)

    @dg.sensor(
        name=CONFIG_FOLDER,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=FOLDER_SECONDS,
        description="Says which YAML files have come, gone or changed since the code location was loaded: *Reload* "
        "makes jobs of them. Files that can't become jobs have a failing check.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = folder_stamp(folder)
        changes = _changes(loaded, now)
        said = f"{changes}: reload the code location" if changes else "all files are as they were loaded"
        seen = json.dumps([loaded, now])
        if seen == context.cursor:
            return dg.SensorResult(skip_reason=said)
        found = read_folder(folder, environ).errors
        if changes:
            broken = "".join(f"; {path.name} is broken: {error}" for path, error in sorted(found.items()))
            context.log.warning(said + broken)
        return dg.SensorResult(
            skip_reason=said,
            cursor=seen,
            asset_events=[_evaluation(path, key, found.get(path)) for path, key in keys.items()],
        )

    return watch


def coverage_reports(configs: Sequence[BackfillConfig]) -> list[dg.AutomationConditionSensorDefinition]:
    """Evaluates the reports' automation conditions; none without a config."""
    reports = [dg.AssetKey([config.name, names.COVERAGE_REPORT]) for config in configs]
    if not reports:
        return []
    return [
        dg.AutomationConditionSensorDefinition(
            COVERAGE_REPORTS,
            target=dg.AssetSelection.assets(*reports),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=REPORTS_SECONDS,
            description="Writes each coverage report anew after its shards or its plan have changed, every ten minutes "
            "at most.",
        )
    ]


def _evaluation(path: Path, key: dg.AssetKey, error: str | None) -> dg.AssetCheckEvaluation:
    passed, said = verdict(path, error)
    return dg.AssetCheckEvaluation(asset_key=key, check_name=CHECK, passed=passed, description=said)


def _changes(loaded: Stamp, now: Stamp) -> str:
    """Which files have come, changed or gone, in words; empty when none has."""
    before, after = ({name: rest for name, *rest in stamp} for stamp in (loaded, now))
    kinds = {
        "added": sorted(after.keys() - before.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
        "removed": sorted(before.keys() - after.keys()),
    }
    return ", ".join(f"{' '.join(files)} {kind}" for kind, files in kinds.items() if files)
