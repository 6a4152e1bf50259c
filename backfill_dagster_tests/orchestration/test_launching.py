"""Looking for shards to launch: what is settled isn't looked into, what a backfill is yet to launch isn't asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemotePartitionSetOrigin,
    RemoteRepositoryOrigin,
)

from backfill_dagster.config import load_config
from backfill_dagster.effects import Effects
from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.orchestration.launching import Launch, find_launch, keys_in_hand, turn
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.log import ShardLog
from backfill_dagster.state import BackfillState, open_state
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.orchestration.road import Road

OPTIONS = LocalnetOptions(hosts=2, repos=8, median_records=5, max_records=20, states={})


@pytest.fixture(scope="module")
def net() -> Iterator[ThreadedNetwork]:
    with threaded_network(OPTIONS) as made:
        yield made


@pytest.fixture
def road(tmp_path: Path, net: ThreadedNetwork) -> Iterator[Road]:
    with dg.instance_for_test() as instance:
        yield Road(tmp_path, net, instance, processing={"shard_size": 2})


@contextmanager
def opened(road: Road, **effects: Any) -> Iterator[BackfillState]:
    with open_state(load_config(road.path), effects=Effects(**effects)) as state:
        yield state


def found(road: Road, **options: Any) -> Launch:
    with opened(road) as state:
        return find_launch(road.instance, state, PlanStore(state.store).read(), **options)


def test_a_settled_shard_is_not_looked_into(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = road.plan()
    for key in keys[1:]:
        road.run("backfill_study", key=key)
    looked: list[str] = []
    read = ShardLog.read

    def noted(log: ShardLog, **options: Any) -> Any:
        looked.append(log.shard)
        return read(log, **options)

    monkeypatch.setattr(ShardLog, "read", noted)
    assert found(road).keys == [keys[0]]
    assert looked == [keys[0]]


def test_what_unsettles_a_shard(road: Road) -> None:
    keys = road.plan()
    for key in keys:
        road.run("backfill_study", key=key)
    assert found(road) == Launch([])
    with opened(road) as state:
        did, seq = next(iter(state.ledger.seqs(keys[2]).items()))
        state.ledger.mark_for_retry(keys[2], {did: seq})
    assert found(road).keys == [keys[2]], "a mark"
    road.run("backfill_study", key=keys[2])
    assert found(road) == Launch([])
    road.run("plan_study", run_config={"ops": {"study__shard_plan": {"config": {"refresh": True}}}})
    assert sorted(found(road).keys) == sorted(keys), "a refresh"
    for key in keys:
        road.run("backfill_study", key=key)
    assert found(road) == Launch([])
    text = road.path.read_text()
    road.path.write_text(text.replace("- app.bsky.graph.*", "- app.bsky.feed.like"))
    assert sorted(found(road).keys) == sorted(keys), "other records are wanted"


def test_a_word_of_an_older_plan_does_not_settle_a_shard(road: Road) -> None:
    keys = road.plan()
    for key in keys:
        road.run("backfill_study", key=key)
    with opened(road) as state:
        plans = PlanStore(state.store)
        newcomer = replace(plans.read().dids(keys[0])[0], did="did:plc:newcomer")
        plans.append(plans.read(), [newcomer], {"refresh": 0})
    assert found(road).keys == [keys[0]]


def test_a_look_takes_a_bounded_time_and_says_how_far_it_came(road: Road) -> None:
    keys = sorted(road.plan(), key=turn)
    now = iter(range(0, 1000, 10))
    with opened(road, monotonic=lambda: float(next(now))) as state:
        plan = PlanStore(state.store).read()
        launch = find_launch(road.instance, state, plan, seconds=5)
        assert launch == Launch([], more=4, last=""), "no time at all: everybody waits"
        launch = find_launch(road.instance, state, plan, seconds=15)
        assert (launch.keys, launch.more) == (keys, 0)
    launch = found(road, limit=3)
    assert (launch.keys, launch.more, launch.last) == (keys[:3], 1, keys[2])


def a_backfill(name: str, keys: list[str], last: str | None, status: BulkActionStatus) -> PartitionBackfill:
    location = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name="backfill_dagster")
    origin = RemotePartitionSetOrigin(
        repository_origin=RemoteRepositoryOrigin(location, "__repository__"), partition_set_name=f"{name}_partition_set"
    )
    return PartitionBackfill(
        backfill_id=f"{name}{last}{status.value}"[:8],
        status=status,
        from_failure=False,
        tags={},
        backfill_timestamp=0.0,
        partition_set_origin=origin,
        partition_names=keys,
        last_submitted_partition_name=last,
    )


@pytest.mark.parametrize(
    ("job", "last", "status", "to_come"),
    [
        ("backfill_study", None, BulkActionStatus.REQUESTED, [0, 1, 2]),
        ("backfill_study", 1, BulkActionStatus.REQUESTED, [2]),
        ("backfill_study", None, BulkActionStatus.COMPLETED_SUCCESS, []),
        ("backfill_other", None, BulkActionStatus.REQUESTED, []),
    ],
)
def test_partitions_that_a_backfill_is_still_to_launch_wait(
    road: Road, job: str, last: int | None, status: BulkActionStatus, to_come: list[int]
) -> None:
    keys = road.plan()[:3]
    backfill = a_backfill(job, keys, None if last is None else keys[last], status)
    road.instance.add_backfill(backfill)
    assert keys_in_hand(road.instance, "study") == (set(), {keys[number] for number in to_come})
