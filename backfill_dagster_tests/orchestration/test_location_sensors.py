"""Sensors over the code location: alerts, the folder of configs, reports that follow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from backfill_dagster.orchestration.alerts import run_alert
from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster.orchestration.run_tags import backfill_of_run
from backfill_dagster_tests.orchestration.samples import write_yaml


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


# failed runs


@dg.op
def breaks() -> None:
    raise dg.Failure("host a.example does not answer.\nRun the partition again after noon", allow_retries=False)


@dg.op
def has_a_defect() -> None:
    raise ZeroDivisionError("no way")


def failed_run(instance: dg.DagsterInstance, job: str, op: dg.OpDefinition, **tags: str) -> Any:
    made = dg.GraphDefinition(name=job, node_defs=[op]).to_job(tags=tags)
    return made.execute_in_process(instance=instance, raise_on_error=False)


def alerted(
    folder: Path, result: Any, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> tuple[list[str], str]:
    """The alert's lines, and why there is none."""
    repository = build_definitions(folder).get_repository_def()
    sensor = repository.get_sensor_def("run_failed")
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failed",
        dagster_run=run,
        dagster_instance=instance,
        dagster_event=next(event for event in result.all_events if event.is_job_failure),
    ).for_run_failure()
    caplog.clear()
    with caplog.at_level(logging.INFO, "backfill_dagster.orchestration.location_sensors"):
        sensor(context)
    return alerts_in(caplog), "\n".join(said(caplog, logging.INFO))


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    ours = [record for record in caplog.records if "location_sensors" in record.name]
    return [record.getMessage() for record in ours if record.levelno == level]


def alerts_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return said(caplog, logging.ERROR)


def test_a_failed_run_is_said_in_one_line(
    tmp_path: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    write_yaml(tmp_path)
    result = failed_run(instance, "backfill_study", breaks, **{"dagster/partition": "a.example~0000"})
    lines, _ = alerted(tmp_path, result, instance, caplog)
    assert lines == [
        "backfill_study of partition a.example~0000 failed: host a.example does not answer. "
        f"Run the partition again after noon (run {result.run_id})"
    ]


def test_a_defect_is_said_by_its_exception(
    tmp_path: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    write_yaml(tmp_path)
    result = failed_run(instance, "plan_study", has_a_defect)
    lines, _ = alerted(tmp_path, result, instance, caplog)
    assert lines == [f"plan_study failed: ZeroDivisionError: no way (run {result.run_id})"]


@pytest.mark.parametrize(("said", "is_alerted"), [("true", False), ("false", True)])
def test_an_attempt_that_is_started_again_alerts_nobody(
    tmp_path: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture, said: str, is_alerted: bool
) -> None:
    write_yaml(tmp_path)
    result = failed_run(instance, "plan_study", breaks, **{"dagster/will_retry": said})
    lines, skipped = alerted(tmp_path, result, instance, caplog)
    assert bool(lines) is is_alerted
    assert ("it is started again by itself" in skipped) is not is_alerted


def test_one_tick_is_about_several_runs(
    tmp_path: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are alerted and some are not; an error here would bring the first alert again and again, for ever."""
    write_yaml(tmp_path)
    repository = build_definitions(tmp_path).get_repository_def()
    sensor, cursor = repository.get_sensor_def("run_failed"), None

    def ticked() -> None:
        nonlocal cursor
        with dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository) as context:
            cursor = sensor.evaluate_tick(context).cursor

    ticked()  # the first one only remembers where it begins
    failed_run(instance, "plan_study", breaks)
    failed_run(instance, "backfill_study", breaks, **{"dagster/will_retry": "true"})
    failed_run(instance, "report_study", breaks)
    monkeypatch.setenv("DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT", "100")
    with caplog.at_level(logging.INFO, "backfill_dagster.orchestration.location_sensors"):
        ticked()
        ticked()
    assert [line.split()[0] for line in alerts_in(caplog)] == ["plan_study", "report_study"]


def test_a_config_may_want_no_alerts(
    tmp_path: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    write_yaml(tmp_path, monitoring={"alert_on_failure": False})
    write_yaml(tmp_path, "other.yaml", name="other")
    lines, skipped = alerted(tmp_path, failed_run(instance, "report_study", breaks), instance, caplog)
    assert lines == []
    assert "monitoring.alert_on_failure is false: report_study failed" in skipped
    lines, _ = alerted(tmp_path, failed_run(instance, "report_other", breaks), instance, caplog)
    assert len(lines) == 1


def test_runs_of_other_code_locations_are_left_to_them(
    tmp_path: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    """All locations are watched, because runs that went round the queue are of none."""
    write_yaml(tmp_path)
    lines, skipped = alerted(tmp_path, failed_run(instance, "plan_theirs", breaks), instance, caplog)
    assert lines == []
    assert "it is no backfill of this code location: plan_theirs failed" in skipped


def test_whose_run_it_was() -> None:
    def of(job: str, assets: list[list[str]] | None = None) -> str | None:
        selection = frozenset(dg.AssetKey(path) for path in assets) if assets else None
        return backfill_of_run(dg.DagsterRun(job_name=job, run_id="1", asset_selection=selection))

    assert of("plan_study_users") == of("backfill_study_users") == of("report_study_users") == "study_users"
    assert of("__ASSET_JOB", [["study", "repo_outcomes"]]) == "study"
    assert of("something") is None
    assert of("plan") is None


def test_a_run_without_any_reason_is_alerted_all_the_same() -> None:
    alert = run_alert(dg.DagsterRun(job_name="__ASSET_JOB", run_id="7"), "", [])
    assert alert.text == "assets failed: no reason given (run 7)"


# the folder of configs


def look(defs: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    repository = defs.get_repository_def()
    with dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository) as context:
        return repository.get_sensor_def("config_folder").evaluate_tick(context)


def test_broken_files_have_a_failing_check_and_a_mended_one_passes(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    write_yaml(tmp_path)
    (tmp_path / "broken.yaml").write_text("backfill: {nmae: x}\n")
    defs = build_definitions(tmp_path)
    first = look(defs, instance)
    [event] = first.asset_events
    assert (event.asset_key, event.check_name) == (dg.AssetKey("broken__config_error"), "config_is_valid")
    assert not event.passed
    assert "did you mean name?" in event.description
    assert first.skip_message == "all files are as they were loaded"
    assert look(defs, instance, first.cursor).asset_events == [], "once for each change"
    write_yaml(tmp_path, "broken.yaml", name="mended")
    mended = look(defs, instance, first.cursor)
    assert mended.skip_message == "broken.yaml changed: reload the code location"
    assert mended.asset_events[0].passed


def test_what_has_come_gone_and_changed_is_said(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    for name in ("a", "b", "c"):
        write_yaml(tmp_path, f"{name}.yaml", name=name)
    defs = build_definitions(tmp_path)
    (tmp_path / "a.yaml").unlink()
    write_yaml(tmp_path, "b.yaml", name="b", auto_launch=True)
    write_yaml(tmp_path, "d.yaml", name="d")
    said = look(defs, instance).skip_message
    assert said == "d.yaml added, b.yaml changed, a.yaml removed: reload the code location"
    assert look(build_definitions(tmp_path), instance).skip_message == "all files are as they were loaded"


def test_what_only_dagster_minds_stands_until_a_file_changes(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> dg.Definitions:
        raise dg.DagsterInvalidDefinitionError("no way")

    write_yaml(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("backfill_dagster.orchestration.build._definitions", refuse)
        defs = build_definitions(tmp_path)
    first = look(defs, instance)
    assert [(event.passed, event.description) for event in first.asset_events] == [
        (False, "Dagster refuses it: no way")
    ]
    write_yaml(tmp_path, auto_launch=True)
    assert look(defs, instance, first.cursor).asset_events[0].passed


def test_the_check_of_a_broken_file_can_be_run_by_hand(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    write_yaml(tmp_path, "one.yaml")
    write_yaml(tmp_path, "two.yaml")
    defs = build_definitions(tmp_path)
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=set(),
        asset_check_selection={dg.AssetCheckKey(dg.AssetKey("one__config_error"), "config_is_valid")},
    )
    [found] = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert not found.passed
    assert "backfill.name is the same as in" in (found.description or "")
    (tmp_path / "two.yaml").unlink()
    [found] = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert found.passed


# reports


class ReportClock:
    """Evaluates the report's condition, and records what happens upstream, at times of its own."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._defs = defs
        self._instance = instance
        self._cursor: Any = None

    def at(self, clock: str) -> datetime:
        return datetime.fromisoformat(f"2026-11-24T{clock}+00:00")

    def asks(self, clock: str) -> bool:
        with freeze_time(self.at(clock)):
            found = dg.evaluate_automation_conditions(
                self._defs,
                instance=self._instance,
                asset_selection=dg.AssetSelection.assets(dg.AssetKey(["study", "coverage_report"])),
                evaluation_time=self.at(clock),
                cursor=self._cursor,
            )
        self._cursor = found.cursor
        return found.total_requested > 0

    def done(self, clock: str, asset: str, partition: str | None = None) -> None:
        event = dg.AssetMaterialization(dg.AssetKey(["study", asset]), partition=partition)
        with freeze_time(self.at(clock)):
            self._instance.report_runless_asset_event(event)


@pytest.fixture
def reports(tmp_path: Path, instance: dg.DagsterInstance) -> ReportClock:
    write_yaml(tmp_path)
    instance.add_dynamic_partitions("did_shards__study", ["a~0000", "b~0000", "c~0000"])
    return ReportClock(build_definitions(tmp_path), instance)


def test_a_report_follows_its_shards_every_ten_minutes(reports: ReportClock) -> None:
    assert not reports.asks("12:01:00")
    reports.done("12:02:00", "repo_outcomes", "a~0000")
    assert not reports.asks("12:05:00"), "not before the ten minutes are round"
    assert reports.asks("12:10:10")
    reports.done("12:10:20", "coverage_report")
    assert not reports.asks("12:20:10"), "nothing new"
    reports.done("12:20:20", "repo_outcomes", "b~0000")
    assert not reports.asks("12:25:00")
    assert reports.asks("12:30:10")
    reports.done("12:30:20", "coverage_report")
    reports.done("12:32:00", "app_bsky_feed_post", "a~0000")
    assert not reports.asks("12:32:10")
    assert reports.asks("12:40:10")


def test_a_shard_that_ends_while_its_report_is_written_is_in_the_next(reports: ReportClock) -> None:
    assert not reports.asks("12:01:00")
    reports.done("12:02:00", "repo_outcomes", "a~0000")
    assert reports.asks("12:10:10")
    reports.done("12:10:15", "repo_outcomes", "b~0000")
    reports.done("12:10:20", "coverage_report")
    assert not reports.asks("12:10:40")
    assert reports.asks("12:20:10")


def test_a_failed_partition_does_not_hinder_the_report(
    tmp_path: Path, reports: ReportClock, instance: dg.DagsterInstance
) -> None:
    """As it did with `eager()`."""
    assert not reports.asks("12:01:00")
    job = build_definitions(tmp_path).resolve_job_def("backfill_study")
    assert not job.execute_in_process(instance=instance, partition_key="b~0000", raise_on_error=False).success
    reports.done("12:02:00", "repo_outcomes", "a~0000")
    assert reports.asks("12:10:10")


def test_without_a_config_no_report_is_watched(tmp_path: Path) -> None:
    names = {one.name for one in build_definitions(tmp_path).get_repository_def().sensor_defs}
    assert names == {"config_folder", "run_failed"}
