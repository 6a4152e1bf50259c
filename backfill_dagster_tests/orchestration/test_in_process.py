"""Plan, shards and report through Dagster in this process, against a real network on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from backfill_dagster.config import load_config
from backfill_dagster.errors import FencedError
from backfill_dagster.ledger import Lease
from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.model import Shard
from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster.orchestration.resources import InlineSource
from backfill_dagster.state import open_state
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.orchestration.road import Road, failure_of, failure_text, materialized, values
from backfill_dagster_tests.road import write_config

OPTIONS = LocalnetOptions(
    hosts=2, repos=14, median_records=20, max_records=60, states={"deactivated": 1, "not_a_did": 1}
)


@pytest.fixture(scope="module")
def net() -> Iterator[ThreadedNetwork]:
    with threaded_network(OPTIONS) as made:
        yield made


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def road(tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance) -> Iterator[Road]:
    yield Road(tmp_path, net, instance)
    net.do(net.network.set_faults([]))


def expected_records(net: ThreadedNetwork, dids: list[str], types: set[str]) -> int:
    entries = [net.network.expected[did] for did in dids if did in net.network.expected]
    return sum(count for entry in entries for one, count in entry["records"].items() if one in types)


def test_the_plan_registers_its_shards_and_says_what_it_will_cost(road: Road) -> None:
    result = road.run("plan_study")
    hosts = sorted(f"localhost_{info.url.rsplit(':', 1)[1]}" for info in road.net.network.hosts)
    assert list(road.instance.get_dynamic_partitions("did_shards__study")) == [f"{host}~0000" for host in hosts]
    numbers = materialized(result, "shard_plan")
    assert numbers["dids"] == len(road.net.network.dids) == 15
    assert (numbers["shards"], numbers["hosts"], numbers["new"]) == (2, 2, 15)
    assert (numbers["delisted"], numbers["unresolved"], numbers["without_host"]) == (0, 0, 1)
    assert numbers["estimate_requests"] == 14
    assert numbers["estimate_bytes"] == 14 * 500_000
    assert "largest hosts" in numbers["summary"]
    assert "invalid_did" in numbers["summary"]


def test_the_list_is_observed_as_the_plan_has_read_it(road: Road) -> None:
    road.plan()
    [record] = road.instance.fetch_observations(dg.AssetKey(["study", "did_list"]), limit=5).records
    assert record.asset_observation is not None
    seen = values(record.asset_observation.metadata)
    assert seen["dagster/row_count"] == 15
    assert seen["source"] == "a list of 15 in the config"
    assert seen["version"].startswith("sha256:")


def test_every_shard_to_the_last_record(road: Road) -> None:
    total = {"repos": 0, "posts": 0, "graph": 0}
    for key in road.plan():
        result = road.run("backfill_study", key=key)
        posts, graph = materialized(result, "app_bsky_feed_post"), materialized(result, "app_bsky_graph_all")
        outcomes = materialized(result, "repo_outcomes")
        assert (
            outcomes["dagster/partition_row_count"] == outcomes["repos"] == outcomes["requests"] - outcomes["retries"]
        )
        assert outcomes["repos_complete"] + outcomes["outcome_deactivated"] == outcomes["repos"]
        assert (outcomes["repos_failed"], outcomes["repos_unavailable"]) == (0, outcomes["outcome_deactivated"])
        assert posts["bytes_fetched"] > 0
        assert posts["records_written"] == posts["dagster/partition_row_count"] + graph["dagster/partition_row_count"]
        assert posts["records_per_second"] > 0
        assert posts["seconds"] > 0
        assert posts["rate_limited_429"] == 0
        assert key in posts["summary"]
        total["repos"] += outcomes["repos_complete"]
        total["posts"] += posts["dagster/partition_row_count"]
        total["graph"] += graph["dagster/partition_row_count"]
    network = road.net.network
    everywhere = list(network.expected)
    graph_types = {one for entry in network.expected.values() for one in entry["records"]} & {
        "follow",
        "block",
        *(t for entry in network.expected.values() for t in entry["records"] if t.startswith("app.bsky.graph.")),
    }
    assert total == {
        "repos": len(network.active),
        "posts": expected_records(road.net, everywhere, {"post", "reply"}),
        "graph": expected_records(road.net, everywhere, graph_types),
    }


def test_the_report_covers_what_is_there(road: Road, tmp_path: Path) -> None:
    first, second = road.plan()
    road.run("backfill_study", key=first)
    half = materialized(road.run("report_study"), "coverage_report")
    road.run("backfill_study", key=second)
    whole = materialized(road.run("report_study"), "coverage_report")
    assert half["dids"] == whole["dids"] == 15
    assert half["dids_left"] > 0
    assert (whole["dids_left"], whole["outcome_complete"]) == (0, len(road.net.network.active))
    assert (whole["outcome_invalid_did"], whole["outcome_deactivated"]) == (1, 1)
    assert json.loads(Path(whole["coverage.json"]).read_text())["dids"] == 15
    assert Path(whole["coverage.html"]).is_file()
    assert "**study**" in whole["summary"]


def test_a_shard_that_is_done_asks_for_nothing(road: Road) -> None:
    key = road.plan()[0]
    before = materialized(road.run("backfill_study", key=key), "repo_outcomes")
    again = materialized(road.run("backfill_study", key=key), "repo_outcomes")
    assert (again["requests"], again["records_written"], again["records_per_second"]) == (0, 0, 0.0)
    assert again["repos_complete"] == before["repos_complete"]
    assert again["dagster/partition_row_count"] == before["dagster/partition_row_count"]


def test_a_run_round_the_queue_tags_itself(road: Road) -> None:
    key = road.plan()[0]
    assets = [road.defs.resolve_assets_def(dg.AssetKey(["study", "repo_outcomes"]))]
    result = dg.materialize(
        assets,
        instance=road.instance,
        partition_key=key,
    )
    run = road.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["backfill/pds_host"] == Shard.parse(key).host
    assert run.tags["backfill/name"] == "study"


def test_an_unknown_partition_names_the_known_ones(road: Road) -> None:
    known = road.plan()
    road.instance.add_dynamic_partitions("did_shards__study", ["nowhere.example~0000"])
    result = road.run("backfill_study", key="nowhere.example~0000", raise_on_error=False)
    assert failure_of(result).step_key == "study__shard.load_shard"
    assert failure_of(result).step_failure_data.user_failure_data is not None
    assert "nowhere.example~0000" in failure_text(result)
    assert all(key in failure_text(result) for key in known)


def test_a_partition_without_a_state_says_what_to_do(road: Road) -> None:
    """The folder was deleted or moved while runs were queued."""
    key = road.plan()[0]
    shutil.rmtree(str(load_config(road.path).state_path))
    result = road.run("backfill_study", key=key, raise_on_error=False)
    assert failure_text(result).startswith(f"{key}: there is no state in ")
    assert "bring it back, or launch plan_study to begin anew" in failure_text(result)
    assert not Path(str(load_config(road.path).state_path)).exists(), "a run begins no state"
    assert road.plan() == list(road.instance.get_dynamic_partitions("did_shards__study"))
    assert road.run("backfill_study", key=key).success


def test_a_report_before_any_plan_says_to_plan(road: Road) -> None:
    assert "nothing is planned yet" in failure_text(road.run("report_study", raise_on_error=False))


def test_a_failed_step_can_be_taken_up_alone(road: Road) -> None:
    """As "retry from failure" does: nothing of `load_shard` is needed."""
    key = road.plan()[0]
    job = road.defs.resolve_job_def("backfill_study")
    result = job.execute_in_process(
        instance=road.instance, partition_key=key, op_selection=["study__shard.fetch_repos"], raise_on_error=False
    )
    assert result.success
    assert materialized(result, "repo_outcomes")["repos_left"] == 0


def test_without_a_partition_the_failure_says_so(road: Road) -> None:
    road.plan()
    result = road.run("backfill_study", raise_on_error=False)
    assert "launch it with a partition" in failure_text(result)


def test_a_held_lease_is_one_line_that_names_the_owner(road: Road) -> None:
    key = road.plan()[0]
    config = load_config(road.path)
    with open_state(config) as state:
        lease = Lease.acquire(
            state.host_leases[0], Shard.parse(key).host, owner="somebody else", run_id="1", lease_seconds=1
        )
        try:
            result = road.run("backfill_study", key=key, raise_on_error=False)
        finally:
            lease.release()
    assert "somebody else" in failure_text(result)
    assert "\n" not in failure_text(result)
    data = failure_of(result).step_failure_data
    assert data.user_failure_data is not None
    assert values(data.user_failure_data.metadata) == {"error": "LeaseHeldError"}


def test_a_dead_host_fails_with_its_numbers_observed(road: Road) -> None:
    key = road.plan()[0]
    road.faults(Fault(kind="down", host=road.host_number(key)))
    result = road.run("backfill_study", key=key, raise_on_error=False)
    text = failure_text(result)
    assert text.startswith(f"{key}: ")
    assert re.search(r"DIDs are left; run the partition again after \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", text)
    observed = {
        asset: values(observation.metadata)
        for asset in ("app_bsky_feed_post", "app_bsky_graph_all", "repo_outcomes")
        for record in road.instance.fetch_observations(dg.AssetKey(["study", asset]), limit=10).records
        if (observation := record.asset_observation) is not None and observation.partition == key
    }
    assert observed["app_bsky_feed_post"]["dagster/partition_row_count"] == 0
    assert observed["app_bsky_graph_all"]["dagster/partition_row_count"] == 0
    outcomes = observed["repo_outcomes"]
    assert outcomes["outcome_pending"] == outcomes["repos_left"] == outcomes["repos"] > 0
    data = failure_of(result).step_failure_data
    assert data.user_failure_data is not None
    assert values(data.user_failure_data.metadata)["repos_left"] == outcomes["repos_left"]
    assert not result.get_asset_materialization_events()

    road.net.do(road.net.network.set_faults([]))
    healed = materialized(road.run("backfill_study", key=key), "repo_outcomes")
    assert healed["repos_left"] == 0


def test_dids_left_with_http_error_do_not_fail_the_run(road: Road) -> None:
    key = road.plan()[0]
    number = road.host_number(key)
    did = next(one for one in road.net.network.hosts[number].dids if one in road.net.network.active)
    fault = Fault(kind="status", status=500, host=number, did=did, path="com.atproto.sync.getRepo")
    road.net.do(road.net.network.set_faults([fault]))
    outcomes = materialized(road.run("backfill_study", key=key), "repo_outcomes")
    assert (outcomes["outcome_http_error"], outcomes["repos_left"]) == (1, 1)


def test_a_silent_directory_is_said_and_no_failure(road: Road) -> None:
    road.net.do(road.net.network.set_faults([Fault(kind="down", host="plc")]))
    numbers = materialized(road.run("plan_study"), "shard_plan")
    assert (numbers["shards"], numbers["unresolved"]) == (0, 14)
    assert "plan again" in numbers["summary"]
    road.net.do(road.net.network.set_faults([]))
    assert materialized(road.run("plan_study"), "shard_plan")["unresolved"] == 0


def test_a_source_resource_can_be_swapped(tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance) -> None:
    write_config(tmp_path, net.network.plc_url, net.network.dids)
    few = net.network.active[:3]
    defs = build_definitions(tmp_path, {"study__source": InlineSource(dids=few)})
    result = defs.resolve_job_def("plan_study").execute_in_process(instance=instance)
    assert materialized(result, "shard_plan")["dids"] == 3


def test_a_config_that_asks_for_what_is_not_there_yet_fails_clearly(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance
) -> None:
    road = Road(tmp_path, net, instance, processing={"decode_processes": 2})
    result = road.run("plan_study", raise_on_error=False)
    assert "processing.decode_processes over 0 is not available in this version" in failure_text(result)


def test_a_missing_source_fails_clearly(tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance) -> None:
    road = Road(tmp_path, net, instance, source={"type": "sqlite", "path": "none.sqlite"})
    result = road.run("plan_study", raise_on_error=False)
    assert "none.sqlite" in failure_text(result)


def test_a_defect_keeps_its_traceback(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = Road(tmp_path, net, instance)
    key = road.plan()[0]

    async def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("backfill_dagster.orchestration.ops.run_shard", broken)
    data = failure_of(road.run("backfill_study", key=key, raise_on_error=False)).step_failure_data
    assert data.user_failure_data is None
    assert data.error is not None
    assert "a defect" in str(data.error.cause)


def test_a_fenced_run_says_so(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = Road(tmp_path, net, instance)
    key = road.plan()[0]

    async def fenced(*arguments: object, **options: object) -> None:
        raise FencedError("another writer has this shard")

    monkeypatch.setattr("backfill_dagster.orchestration.ops.run_shard", fenced)
    result = road.run("backfill_study", key=key, raise_on_error=False)
    assert failure_text(result) == "another writer has this shard"


def test_no_event_loop_is_left_behind(road: Road) -> None:
    road.plan()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
