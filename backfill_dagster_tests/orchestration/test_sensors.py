"""Sensors of one backfill: a changed source is planned, new shards are registered and, if wanted, launched."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from backfill_dagster.cli.main import run_command
from backfill_dagster.config import load_config
from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.model import Shard
from backfill_dagster.orchestration.new_shards import Memory, tick
from backfill_dagster.plan import PlanStore
from backfill_dagster.state import open_state
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.orchestration.road import Road
from backfill_dagster_tests.orchestration.runs import a_run

OPTIONS = LocalnetOptions(hosts=2, repos=8, median_records=5, max_records=20)


@pytest.fixture(scope="module")
def net() -> Iterator[ThreadedNetwork]:
    with threaded_network(OPTIONS) as made:
        yield made


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        monkeypatch.delenv("DAGSTER_HOME")  # plans from the terminal don't know this one
        yield made


def a_road(folder: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, **changes: Any) -> Road:
    processing = {"shard_size": 2} | changes.pop("processing", {})
    return Road(folder, net, instance, processing=processing, **changes)


def looked(road: Road, sensor: str, cursor: str | None = None) -> Any:
    repository = road.defs.get_repository_def()
    definition = repository.get_sensor_def(sensor)
    with dg.SensorEvaluationContext(
        instance_ref=road.instance.get_ref(),  # as the code server does: new partitions are known in the same look
        last_tick_completion_time=None,
        last_run_key=None,
        cursor=cursor,
        repository_name=None,
        repository_def=repository,
        instance=road.instance,
    ) as context:
        return definition.evaluate_tick(context)


def keys_of(data: Any) -> list[str]:
    return [request.partition_key for request in data.run_requests or ()]


def plan_in_terminal(road: Road, *options: str) -> None:
    assert run_command(["plan", str(road.path), *options]) == 0


def state_id(road: Road) -> str:
    with open_state(load_config(road.path), read_only=True) as state:
        return state.ledger.state_id() or ""


def planned_shards(road: Road) -> list[str]:
    with open_state(load_config(road.path), read_only=True) as state:
        return list(PlanStore(state.store).read().shards())


# the source


def write_dids(path: Path, dids: list[str]) -> None:
    path.write_text("did\n" + "\n".join(dids) + "\n")


def test_a_source_that_nobody_has_planned_is_planned_once(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance)
    first = looked(road, "source_changed_study")
    assert len(first.run_requests) == 1
    again = looked(road, "source_changed_study", first.cursor)
    assert not again.run_requests
    assert again.skip_message == "a plan has been asked for already for this content"
    road.run("plan_study")
    planned = looked(road, "source_changed_study", first.cursor)
    assert planned.skip_message == "the source is as the last plan has seen it"


def test_a_file_counts_by_its_content(tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance) -> None:
    path, dids = tmp_path / "dids.csv", net.network.dids
    write_dids(path, dids[:4])
    road = a_road(tmp_path, net, instance, source={"type": "file", "path": str(path)})
    road.run("plan_study")
    write_dids(path, dids[:4])
    assert looked(road, "source_changed_study").skip_message == "the source is as the last plan has seen it"
    asked = set()
    cursor = None
    for part in (dids, dids[:4], dids):  # there and back again: each time another plan
        write_dids(path, part)
        data = looked(road, "source_changed_study", cursor)
        asked.add(data.run_requests[0].run_key)
        cursor = data.cursor
        road.run("plan_study")
        assert looked(road, "source_changed_study", cursor).skip_message
    assert len(asked) == 3


def test_a_database_that_has_changed_is_planned(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    path = tmp_path / "dids.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE dids (did TEXT)")
        connection.execute("INSERT INTO dids VALUES (?)", [net.network.dids[0]])
    road = a_road(tmp_path, net, instance, source={"type": "sqlite", "path": str(path)})
    road.run("plan_study")
    assert not looked(road, "source_changed_study").run_requests
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO dids VALUES (?)", [net.network.dids[1]])
    assert looked(road, "source_changed_study").run_requests


def test_a_source_that_is_gone_is_said_and_asks_for_nothing(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance, source={"type": "file", "path": str(tmp_path / "none.csv")})
    data = looked(road, "source_changed_study")
    assert not data.run_requests
    assert "none.csv doesn't exist: correct source.path" in data.skip_message


def test_sensors_that_fetch_by_themselves_are_off_and_those_that_tidy_are_on(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    found = {one.name: one for one in a_road(tmp_path, net, instance).defs.get_repository_def().sensor_defs}
    running = {name for name, one in found.items() if one.default_status is dg.DefaultSensorStatus.RUNNING}
    assert running == {"config_folder", "coverage_reports", "new_shards_study", "run_failed"}
    assert set(found) == running | {"source_changed_study"}
    assert all(one.description for one in found.values())


# new shards


def test_before_a_plan_there_is_nothing_to_register(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    assert "nothing is planned yet" in looked(a_road(tmp_path, net, instance), "new_shards_study").skip_message


def test_shards_of_a_plan_from_the_terminal_are_registered(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance)
    plan_in_terminal(road)
    data = looked(road, "new_shards_study")
    [added] = data.dynamic_partitions_requests
    assert added.partitions_def_name == "did_shards__study"
    assert len(added.partition_keys) == 4
    assert keys_of(data) == []
    assert data.skip_message == "4 partitions registered; nothing asks for a launch"
    instance.add_dynamic_partitions("did_shards__study", list(added.partition_keys))
    settled = looked(road, "new_shards_study", data.cursor)
    assert not settled.dynamic_partitions_requests
    assert settled.skip_message == "all shards of the plan are partitions; nothing asks for a launch"
    instance.delete_dynamic_partition("did_shards__study", added.partition_keys[0])
    [added] = looked(road, "new_shards_study", settled.cursor).dynamic_partitions_requests
    assert len(added.partition_keys) == 1


def test_with_auto_launch_new_shards_are_launched_in_the_same_look(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    path = tmp_path / "dids.csv"
    write_dids(path, net.network.dids[:4])
    road = a_road(tmp_path, net, instance, source={"type": "file", "path": str(path)}, auto_launch=True)
    plan_in_terminal(road)
    first = looked(road, "new_shards_study")
    known = planned_shards(road)
    assert sorted(keys_of(first)) == known
    assert sorted(first.dynamic_partitions_requests[0].partition_keys) == known
    assert {request.run_key for request in first.run_requests} == {f"{state_id(road)}:plan:1:{key}" for key in known}
    for key in known:
        instance.add_dynamic_partitions("did_shards__study", [key])
        road.run("backfill_study", key=key)
    assert keys_of(looked(road, "new_shards_study", first.cursor)) == []

    write_dids(path, net.network.dids)
    road.run("plan_study")
    data = looked(road, "new_shards_study", first.cursor)
    assert sorted(keys_of(data)) == sorted(set(planned_shards(road)) - set(known))
    assert keys_of(looked(road, "new_shards_study", data.cursor)) == []


def test_without_auto_launch_a_refresh_that_was_to_launch_does(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance)
    keys = road.plan()
    for key in keys:
        road.run("backfill_study", key=key)
    before = looked(road, "new_shards_study")
    assert keys_of(before) == []
    config = {"ops": {"study__shard_plan": {"config": {"refresh": True}}}}
    road.run("plan_study", run_config=config)
    assert keys_of(looked(road, "new_shards_study", before.cursor)) == [], "nobody asked for a launch"
    run = road.run("plan_study", run_config=config, tags={"backfill/launch": "pending"})
    data = looked(road, "new_shards_study", before.cursor)
    assert sorted(keys_of(data)) == sorted(keys)
    assert data.run_requests[0].run_key.startswith(f"{state_id(road)}:refresh:{run.run_id}:")
    assert keys_of(looked(road, "new_shards_study", data.cursor)) == []


# waves


def ticks(road: Road, memory: Memory, *, limit: int = 500) -> Any:
    with open_state(load_config(road.path), read_only=True) as state:
        return tick(road.instance, state, PlanStore(state.store).read(), memory, limit)


def test_a_big_launch_goes_in_waves(tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance) -> None:
    road = a_road(tmp_path, net, instance, auto_launch=True)
    keys = road.plan()
    launched: list[str] = []
    memory = Memory()
    for _ in range(3):
        done = ticks(road, memory, limit=2)
        launched += done.launch
        memory = Memory.from_cursor(done.memory.cursor)
    assert sorted(launched) == sorted(keys), "each once"
    assert memory == Memory(state_id=state_id(road), generation=1)


def test_a_shard_at_work_gets_its_turn_when_it_is_done(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance, auto_launch=True)
    keys = road.plan()
    tags = {"backfill/name": "study", "dagster/partition": keys[1]}
    run = a_run(instance, "backfill_study", dg.DagsterRunStatus.STARTED, tags)
    done = ticks(road, Memory())
    assert sorted(done.launch) == sorted(set(keys) - {keys[1]})
    assert done.memory.later == (keys[1],)
    waiting = ticks(road, done.memory)
    assert waiting.launch == []
    instance.report_run_canceled(run)
    last = ticks(road, waiting.memory)
    assert (last.launch, last.wave) == ([keys[1]], f"{state_id(road)}:later:1")
    assert last.memory == Memory(state_id=state_id(road), generation=1)


def test_nobody_waits_for_a_shard_that_is_long_at_work(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    path = tmp_path / "dids.csv"
    write_dids(path, net.network.dids[:4])
    road = a_road(tmp_path, net, instance, source={"type": "file", "path": str(path)}, auto_launch=True)
    first = road.plan()
    a_run(
        instance,
        "backfill_study",
        dg.DagsterRunStatus.STARTED,
        {"backfill/name": "study", "dagster/partition": first[-1]},
    )
    done = ticks(road, Memory())
    assert done.memory.later == (first[-1],)
    write_dids(path, net.network.dids)
    road.run("plan_study")
    again = ticks(road, done.memory)
    assert set(again.launch) >= set(planned_shards(road)) - set(first)
    assert again.memory.later == (first[-1],)
    assert again.memory.wave == ""


def test_a_resting_host_gets_its_turn_when_it_has_rested(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance, auto_launch=True)
    keys = road.plan()
    host = Shard.parse(keys[0]).host
    tags = {"backfill/name": "study", "dagster/partition": keys[0], "backfill/pds_host": host}
    run = a_run(
        instance, "backfill_study", dg.DagsterRunStatus.STARTED, tags | {"backfill/retry_after": "2999-01-01T00:00:00Z"}
    )
    instance.report_run_failed(run)
    done = ticks(road, Memory())
    resting = [key for key in keys if Shard.parse(key).host == host]
    assert sorted(done.launch) == sorted(set(keys) - set(resting))
    assert sorted(done.memory.later) == sorted(resting)
    again = a_run(instance, "backfill_study", dg.DagsterRunStatus.STARTED, tags)
    instance.report_run_canceled(again)
    assert ticks(road, done.memory).launch == [], "a run that was stopped says nothing of the host"
    well = a_run(instance, "backfill_study", dg.DagsterRunStatus.SUCCESS, tags)
    assert sorted(ticks(road, done.memory).launch) == sorted(resting), well.run_id


def test_a_state_that_began_anew_launches_again(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance, auto_launch=True)
    keys = road.plan()
    memory = replace(ticks(road, Memory()).memory, generation=7)
    shutil.rmtree(str(load_config(road.path).state_path))
    road.run("plan_study")
    done = ticks(road, memory)
    assert sorted(done.launch) == sorted(keys)
    assert done.wave == f"{state_id(road)}:plan:1"


def test_a_failed_plan_is_asked_for_again_after_a_while(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance)
    first = looked(road, "source_changed_study")
    [request] = first.run_requests
    run = a_run(instance, "plan_study", dg.DagsterRunStatus.STARTED, dict(request.tags))
    assert "was asked to plan this content" in looked(road, "source_changed_study", first.cursor).skip_message
    with freeze_time(datetime.now(UTC) - timedelta(minutes=5)):
        instance.report_run_failed(run)
    assert not looked(road, "source_changed_study", first.cursor).run_requests, "not at once"
    again = a_run(instance, "plan_study", dg.DagsterRunStatus.STARTED, dict(request.tags))
    with freeze_time(datetime.now(UTC) - timedelta(minutes=11)):
        instance.report_run_failed(again)
    [request] = looked(road, "source_changed_study", first.cursor).run_requests
    assert request.run_key == f"{first.cursor}:{again.run_id}"


def test_what_this_version_does_not_have_is_said_and_no_error(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance, processing={"decode_processes": 2})
    for sensor in ("source_changed_study", "new_shards_study"):
        assert "is not available in this version" in looked(road, sensor).skip_message


def test_what_waits_in_the_queue_will_see_the_new_plan(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = a_road(tmp_path, net, instance, auto_launch=True)
    for key in road.plan():
        tags = {"backfill/name": "study", "dagster/partition": key}
        a_run(instance, "backfill_study", dg.DagsterRunStatus.QUEUED, tags)
    done = ticks(road, Memory())
    assert (done.launch, done.memory) == ([], Memory(state_id=state_id(road), generation=1))
    assert "4 in hand already" in done.text


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "no json",
        "[]",
        "7",
        '{"later": 7}',
        '{"generation": "x"}',
        '{"wave": "w", "after": "garbage"}',
        '{"later": ["garbage"]}',
    ],
)
def test_a_cursor_that_somebody_has_set_is_no_memory(cursor: str) -> None:
    assert Memory.from_cursor(cursor) == Memory()


def test_a_memory_comes_back_from_its_cursor() -> None:
    memory = Memory(
        state_id="s", generation=3, refresh_run="x", wave="plan:3", since=2, after="a~0000", later=("b~0001",)
    )
    assert Memory.from_cursor(memory.cursor) == memory
    assert Memory.from_cursor(None) == Memory()
