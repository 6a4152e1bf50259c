"""A list on S3 through Dagster: planned, looked at by the sensor, missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from backfill_dagster.aws import AwsError, AwsPlace, aws_client
from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.orchestration import looks, names
from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster.orchestration.resources import S3Source
from backfill_dagster_tests.aws.proxy import Trouble, proxied
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.orchestration.road import Road, failure_text, materialized
from backfill_dagster_tests.orchestration.test_sensors import a_road, looked
from backfill_dagster_tests.road import write_config

OPTIONS = LocalnetOptions(hosts=2, repos=8, median_records=5, max_records=20)


@pytest.fixture(scope="module")
def net() -> Iterator[ThreadedNetwork]:
    with threaded_network(OPTIONS) as made:
        yield made


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        monkeypatch.delenv("DAGSTER_HOME")
        yield made


def test_the_resource_takes_the_place_of_another(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, moto: str, bucket: str
) -> None:
    body = "\n".join(["did", *net.network.active[:3]]).encode()
    aws_client("s3", AwsPlace("us-east-1", moto)).put_object(Bucket=bucket, Key="dids.csv", Body=body)
    write_config(tmp_path, net.network.plc_url, net.network.dids)
    resource = S3Source(path=f"s3://{bucket}/dids.csv", region="us-east-1", endpoint_url=moto)
    defs = build_definitions(tmp_path, {"study__source": resource})
    result = defs.resolve_job_def("plan_study").execute_in_process(instance=instance)
    assert materialized(result, "shard_plan")["dids"] == 3


def test_a_list_on_s3(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, moto: str, bucket: str
) -> None:
    place = AwsPlace("us-east-1", moto)
    body = "did\n" + "\n".join(net.network.active[:2]) + "\n"
    aws_client("s3", place).put_object(Bucket=bucket, Key="dids.csv", Body=body.encode())
    source = {"type": "s3", "path": f"s3://{bucket}/dids.csv", "region": "us-east-1", "endpoint_url": moto}
    road = Road(tmp_path, net, instance, source=source)
    assert materialized(road.run("plan_study"), "shard_plan")["dids"] == 2
    missing = Road(tmp_path, net, instance, source=source | {"path": f"s3://{bucket}/none.csv"})
    result = missing.run("plan_study", raise_on_error=False)
    assert f"s3://{bucket}/none.csv is not there: correct source.path" in failure_text(result)


def test_objects_that_have_changed_are_planned(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, moto: str, bucket: str
) -> None:
    client = aws_client("s3", AwsPlace("us-east-1", moto))

    def put(key: str, dids: list[str]) -> None:
        client.put_object(Bucket=bucket, Key=key, Body="\n".join(["did", *dids]).encode())

    put("d/1.csv", net.network.dids[:2])
    source = {"type": "s3", "path": f"s3://{bucket}/d/*.csv", "region": "us-east-1", "endpoint_url": moto}
    road = a_road(tmp_path, net, instance, source=source)
    road.run("plan_study")
    put("d/1.csv", net.network.dids[:2])
    put("d/readme.txt", [])
    assert looked(road, "source_changed_study").skip_message == "the source is as the last plan has seen it"
    put("d/2.csv", net.network.dids[2:4])
    assert looked(road, "source_changed_study").run_requests
    road.run("plan_study")
    assert not looked(road, "source_changed_study").run_requests
    for key in ("d/1.csv", "d/2.csv"):
        client.delete_object(Bucket=bucket, Key=key)
    said = looked(road, "source_changed_study").skip_message
    assert said.startswith(f"the source can't be looked at: s3://{bucket}/d/*.csv matches none of the 1 objects below")


@pytest.mark.usefixtures("aws_environ")
def test_a_table_that_is_not_there_yet_is_no_error_until_something_is_planned(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, ministack: str
) -> None:
    storage = {"type": "dynamodb", "table_name": "not-there", "region": "us-east-1", "endpoint_url": ministack}
    road = a_road(tmp_path, net, instance, storage=storage)
    said = looked(road, "new_shards_study").skip_message or ""
    assert said.startswith("nothing is planned here yet, and the state is out of reach: DynamoDB table not-there at ")
    assert "no such table; `backfill ledger create CONFIG` creates it" in said
    assert "no such table" in (looked(road, "source_changed_study").skip_message or "")
    instance.add_dynamic_partitions(names.partitions("study"), ["localhost_1~0000"])
    with pytest.raises(AwsError, match="no such table"):
        looked(road, "new_shards_study")


@pytest.fixture
def brief_looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ticks wait half a second; in the end no look is under way any more."""
    monkeypatch.setattr(looks, "LOOK_SECONDS", 0.5)
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("look at "):
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.usefixtures("no_backoff", "brief_looks")
def test_a_service_that_never_answers_holds_no_tick_up(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, moto: str, bucket: str
) -> None:
    """Dagster gives up on a tick after a minute; boto3's own tries take ten."""
    with proxied(moto) as proxy:
        source = {"type": "s3", "path": f"s3://{bucket}/d.csv", "region": "us-east-1", "endpoint_url": proxy.url}
        road = a_road(tmp_path, net, instance, source=source)
        proxy.choose = lambda seen: Trouble.HANG
        first = looked(road, "source_changed_study")
        assert not first.run_requests
        said = "the source of study has not answered within 0.5 s; see that it can be reached"
        assert first.skip_message == f"the source can't be looked at: {said}"
        asked = len(proxy.seen)
        assert "an earlier look at the source of study still waits" in looked(road, "source_changed_study").skip_message
        assert len(proxy.seen) == asked == 1


@pytest.mark.usefixtures("no_backoff", "brief_looks")
def test_a_state_that_never_answers_fails_the_tick_once_something_is_planned(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, moto: str, bucket: str
) -> None:
    with proxied(moto) as proxy:
        state = {"path": f"s3://{bucket}/state", "region": "us-east-1", "endpoint_url": proxy.url}
        storage = {"type": "sqlite", "path": str(tmp_path / "ledger.sqlite")}
        road = a_road(tmp_path, net, instance, state=state, storage=storage)
        proxy.choose = lambda seen: Trouble.HANG
        assert "nothing is planned here yet, and the state is out of" in looked(road, "new_shards_study").skip_message
        instance.add_dynamic_partitions(names.partitions("study"), ["pds.example~0000"])
        with pytest.raises(looks.NoAnswerError, match="the state of study still waits for an answer"):
            looked(road, "new_shards_study")


def test_a_state_that_is_out_of_reach_is_no_error_until_something_is_planned(
    tmp_path: Path, net: ThreadedNetwork, instance: dg.DagsterInstance, moto: str, bucket: str
) -> None:
    place = {"region": "us-east-1", "endpoint_url": moto}
    state = {"path": "s3://no-such-bucket-here/study", **place}
    road = a_road(tmp_path, net, instance, state=state, storage={"type": "sqlite", "path": "ledger.sqlite"})
    said = looked(road, "new_shards_study").skip_message or ""
    assert said.startswith(
        "nothing is planned here yet, and the state is out of reach: can't list s3://no-such-bucket-"
    )
    instance.add_dynamic_partitions("did_shards__study", ["localhost_1~0000"])
    with pytest.raises(AwsError, match="NoSuchBucket"):
        looked(road, "new_shards_study")
