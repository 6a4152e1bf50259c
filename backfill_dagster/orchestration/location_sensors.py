"""Sensors over the whole code location: failed runs, the folder of configs, reports that follow their shards."""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import json
import logging
from collections.abc import Sequence

import dagster as dg

from backfill_dagster.config import BackfillConfig
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.alerts import is_retried, run_alert
from backfill_dagster.orchestration.broken import CHECK, BrokenFiles, broken_keys
from backfill_dagster.orchestration.config_folder import Stamp, folder_stamp

RUN_FAILED = "run_failed"
CONFIG_FOLDER = "config_folder"
COVERAGE_REPORTS = "coverage_reports"

FAILED_SECONDS = 10
FOLDER_SECONDS = 30
REPORTS_SECONDS = 30

_logger = logging.getLogger(__name__)


def run_failed(configs: Sequence[BackfillConfig]) -> dg.SensorDefinition:
    """The alert for a run that failed and that Dagster doesn't start again by itself."""
    ours = {config.name: config.monitoring.alert_on_failure for config in configs}

    @dg.run_failure_sensor(
        name=RUN_FAILED,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=FAILED_SECONDS,
        monitor_all_code_locations=True,  # runs that went round the queue (`dagster job execute`) are of none
        description="Says which run failed and why, once nothing starts it again by itself. Not for configs with "
        "`monitoring.alert_on_failure: false`.",
    )
    def on_failure(context: dg.RunFailureSensorContext) -> None:
        # No SkipReason: a tick is about several runs, and Dagster takes none beside another run's alert.
        run = context.dagster_run
        alert = run_alert(run, context.failure_event.message or "", context.get_step_failure_events())
        if is_retried(run):
            _logger.info("no alert, it is started again by itself: %s", alert.text)
        elif alert.backfill not in ours:
            _logger.info("no alert, it is no backfill of this code location: %s", alert.text)
        elif not ours[alert.backfill]:
            _logger.info("no alert, monitoring.alert_on_failure is false: %s", alert.text)
        else:
            _logger.error("%s", alert.text, extra={"fields": {"alert": RUN_FAILED, "run_id": alert.run_id}})

    return on_failure


def config_folder_sensor(broken: BrokenFiles) -> dg.SensorDefinition:
    """Says when the folder is another than the code location has loaded, and keeps the broken files' checks."""
    keys = broken_keys(broken.errors)

    @dg.sensor(
        name=CONFIG_FOLDER,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=FOLDER_SECONDS,
        description="Says which YAML files have come, gone or changed since the code location was loaded: *Reload* "
        "makes jobs of them. Files that can't become jobs have a failing check.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = folder_stamp(broken.folder)
        changes = _changes(broken.stamp, now)
        said = f"{changes}: reload the code location" if changes else "all files are as they were loaded"
        seen = json.dumps([broken.stamp, now])
        if seen == context.cursor:
            return dg.SensorResult(skip_reason=said)
        if changes:
            _logger.warning("%s", said)
        events = [
            dg.AssetCheckEvaluation(asset_key=keys[path], check_name=CHECK, passed=passed, description=text)
            for path, (passed, text) in broken.verdicts().items()
        ]
        return dg.SensorResult(skip_reason=said, cursor=seen, asset_events=events)

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
            description="Writes each coverage report anew after one of its shards has, every ten minutes at most.",
        )
    ]


def _changes(loaded: Stamp, now: Stamp) -> str:
    """Which files have come, changed or gone, in words; empty when none has."""
    before, after = ({name: rest for name, *rest in stamp} for stamp in (loaded, now))
    kinds = {
        "added": sorted(after.keys() - before.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
        "removed": sorted(before.keys() - after.keys()),
    }
    return ", ".join(f"{' '.join(files)} {kind}" for kind, files in kinds.items() if files)
