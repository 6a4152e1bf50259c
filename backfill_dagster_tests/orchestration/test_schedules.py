"""Schedules: what each tick asks for, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._check import CheckError
from dagster._core.test_utils import freeze_time

from backfill_dagster.cli.main import run_command
from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.model import Shard
from backfill_dagster.orchestration import build
from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster.state import open_state
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.orchestration.road import Road, materialized
from backfill_dagster_tests.orchestration.runs import a_run
from backfill_dagster_tests.orchestration.samples import write_yaml

OPTIONS = LocalnetOptions(hosts=2, repos=8, median_records=5, max_records=20)
TICK = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def net() -> Iterator[ThreadedNetwork]:
    with threaded_network(OPTIONS) as made:
        yield made


@pytest.fixture
def road(tmp_path: Path, net: ThreadedNetwork) -> Iterator[Road]:
    with dg.instance_for_test() as instance:
        road = Road(tmp_path, net, instance, processing={"shard_size": 2})
        yield road
        road.faults()


def ticked(road: Road, schedule: str, at: datetime = TICK) -> Any:
    """What the schedule returns: a list of requests, or a reason to skip."""
    definition = road.defs.get_repository_def().get_schedule_def(schedule)
    with dg.build_schedule_context(
        instance=road.instance,
        scheduled_execution_time=at,
        repository_def=road.defs.get_repository_def(),
    ) as context:
        data = definition.evaluate_tick(context)
    return data.run_requests or data.skip_message


def asked(requests: Any) -> list[str]:
    assert not isinstance(requests, str), requests
    return [one.partition_key for one in requests]


def by_turns(keys: list[str]) -> list[str]:
    """Hosts by turns, as a host has one run at a time."""
    return sorted(keys, key=lambda key: (Shard.parse(key).number, key))


def test_they_are_off_until_someone_turns_them_on(road: Road) -> None:
    schedules = {one.name: one for one in road.defs.get_repository_def().schedule_defs}
    assert sorted(schedules) == ["refresh_study", "resume_study"]
    for one in schedules.values():
        assert one.default_status is dg.DefaultScheduleStatus.STOPPED
        assert one.execution_timezone == "UTC"
        assert one.description
    assert (schedules["resume_study"].cron_schedule, schedules["refresh_study"].cron_schedule) == (
        "0 * * * *",
        "0 3 * * *",
    )


def test_without_a_cron_string_there_is_no_schedule(tmp_path: Path) -> None:
    write_yaml(tmp_path, schedule={"resume_cron": None, "refresh_cron": "@weekly"})
    schedules = build_definitions(tmp_path).get_repository_def().schedule_defs
    assert [(one.name, one.cron_schedule) for one in schedules] == [("refresh_study", "@weekly")]


def test_a_cron_string_that_never_comes_breaks_its_own_file_only(tmp_path: Path) -> None:
    write_yaml(tmp_path, schedule={"resume_cron": "0 0 30 2 1"})
    write_yaml(tmp_path, "other.yaml", name="other")
    defs = build_definitions(tmp_path)
    keys = {spec.key.to_user_string(): spec.description or "" for spec in defs.resolve_all_asset_specs()}
    assert "0 0 30 2 1" in keys["study__config_error"]
    assert "other/did_list" in keys
    assert "study/did_list" not in keys


def test_what_dagster_refuses_breaks_its_own_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known that gets past the config's own checks; should there be something, the others live on."""
    write_yaml(tmp_path)
    write_yaml(tmp_path, "other.yaml", name="other")
    made = build._definitions

    def refused(config: BackfillConfig, overrides: Any) -> dg.Definitions:
        if config.name == "study":
            raise CheckError("no\nway")  # no DagsterError, and Dagster raises it all the same
        return made(config, overrides)

    monkeypatch.setattr(build, "_definitions", refused)
    keys = {
        spec.key.to_user_string(): spec.description or ""
        for spec in build_definitions(tmp_path).resolve_all_asset_specs()
    }
    assert "Dagster refuses it:" in keys["study__config_error"]
    assert "no way" in keys["study__config_error"]
    assert "other/did_list" in keys


def test_before_a_plan_there_is_nothing_to_resume(road: Road) -> None:
    assert "nothing is planned yet" in ticked(road, "resume_study")


def test_resume_asks_for_every_shard_with_work_by_turns_and_for_none_that_is_done(road: Road) -> None:
    keys = road.plan()
    assert len(keys) == 4
    assert asked(ticked(road, "resume_study")) == by_turns(keys)
    road.run("backfill_study", key=keys[0])
    assert asked(ticked(road, "resume_study")) == by_turns(keys[1:])
    for key in keys[1:]:
        road.run("backfill_study", key=key)
    assert ticked(road, "resume_study") == "nothing to do"


def test_its_runs_have_tags_and_a_key_of_their_tick(road: Road) -> None:
    key = by_turns(road.plan())[0]
    first = ticked(road, "resume_study")[0]
    assert first.run_key == f"{TICK.isoformat()}:{key}"
    assert first.tags["backfill/pds_host"] == Shard.parse(key).host
    assert first.tags["backfill/name"] == "study"


def test_a_retry_mark_is_work(road: Road) -> None:
    keys = road.plan()
    for key in keys:
        road.run("backfill_study", key=key)
    with open_state(load_config(road.path)) as state:
        did, seq = next(iter(state.ledger.seqs(keys[2]).items()))
        state.ledger.mark_for_retry(keys[2], {did: seq})
    assert asked(ticked(road, "resume_study")) == [keys[2]]


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
)
def test_what_is_queued_or_running_is_not_asked_for(road: Road, status: dg.DagsterRunStatus) -> None:
    keys = by_turns(road.plan())
    tags = {"backfill/name": "study", "dagster/partition": keys[1]}
    a_run(road.instance, "backfill_study", status, tags)
    a_run(road.instance, "backfill_other", status, tags | {"dagster/partition": keys[2], "backfill/name": "other"})
    assert asked(ticked(road, "resume_study")) == [keys[0], *keys[2:]]


def test_a_host_that_gave_no_answer_is_let_alone_for_a_while(road: Road) -> None:
    keys = road.plan()
    dead = Shard.parse(keys[0]).host
    road.faults(Fault(kind="down", host=road.host_number(keys[0])))
    road.run("backfill_study", key=keys[0], raise_on_error=False)
    alive = [key for key in by_turns(keys) if Shard.parse(key).host != dead]
    assert asked(ticked(road, "resume_study")) == alive
    for key in alive:
        road.run("backfill_study", key=key)
    said = ticked(road, "resume_study")
    assert said == "no shard to launch: 0 in hand already, 2 with a host that wants to be let alone"


def test_shards_of_a_plan_from_the_terminal_are_registered_and_asked_for(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster refuses a whole tick that asks for one partition it doesn't know."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert run_command(["plan", str(road.path)]) == 0
    assert len(asked(ticked(road, "resume_study"))) == 4
    assert len(road.instance.get_dynamic_partitions("did_shards__study")) == 4


def test_who_has_waited_longest_comes_first(road: Road) -> None:
    """Else the first few hundred would come round each time, and those behind them never."""
    keys = by_turns(road.plan())
    for number, key in enumerate((keys[0], keys[2])):
        tags = {"dagster/partition": key, "dagster/partition_set": "backfill_study_partition_set"}
        run = a_run(road.instance, "backfill_study", dg.DagsterRunStatus.STARTED, tags)
        with freeze_time(datetime(2026, 11, 24, 10, number, tzinfo=UTC)):
            road.instance.report_run_failed(run)
    assert asked(ticked(road, "resume_study")) == [keys[1], keys[3], keys[0], keys[2]]


def test_refresh_plans_a_new_round(road: Road) -> None:
    [request] = ticked(road, "refresh_study")
    assert request.tags["backfill/launch"] == "pending"
    for _ in range(2):
        result = road.run("plan_study", run_config=request.run_config)
    numbers = materialized(result, "shard_plan")
    assert (numbers["refresh"], numbers["generation"]) == (2, 2)


def test_refresh_waits_for_a_plan_that_is_going_on(road: Road) -> None:
    a_run(road.instance, "plan_study", dg.DagsterRunStatus.QUEUED)
    assert ticked(road, "refresh_study") == "a run of plan_study is queued or going on"
