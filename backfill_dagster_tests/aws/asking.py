"""Every kind of request that commands and sensors make of AWS, noted by what it is about."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.cli.main import run_command
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster.records.part_file import part_key
from backfill_dagster.store.s3 import S3Store
from backfill_dagster_tests.aws.iam import ACCOUNT, Asked, asked_of_dynamodb, asked_of_s3
from backfill_dagster_tests.aws.proxy import Proxy
from backfill_dagster_tests.orchestration.network import ThreadedNetwork
from backfill_dagster_tests.road import write_config

REGION = "eu-west-3"
MIB = 1024 * 1024

NAMES = {
    "LIST_BUCKET": "the-lists",
    "LIST_PREFIX": "some/lists",
    "STATE_BUCKET": "the-states",
    "STATE_PREFIX": "of/mine/study",
    "REGION": REGION,
    "ACCOUNT": ACCOUNT,
    "TABLE": "my-ledger",
}
"""What takes the place of a file's placeholders."""


@dataclass
class Recorded:
    """What was asked, by what it was about; and by which commands."""

    source: list[Asked] = field(default_factory=list)
    state: list[Asked] = field(default_factory=list)
    ledger: list[Asked] = field(default_factory=list)
    creation: list[Asked] = field(default_factory=list)
    commands: set[str] = field(default_factory=set)


class Commands:
    """Runs commands; what they ask is noted."""

    def __init__(
        self, folder: Path, network: ThreadedNetwork, s3: Proxy, dynamodb: Proxy, instance: dg.DagsterInstance
    ) -> None:
        self._folder, self._network, self._s3, self._dynamodb = folder, network, s3, dynamodb
        self._instance = instance
        self.recorded = Recorded()
        self.lists = AwsPlace(REGION, s3.upstream)
        self.config = self.write()

    def write(self, **changes: Any) -> Path:
        """The config, with the list in one CSV object."""
        s3 = {"region": REGION, "endpoint_url": self._s3.url}
        dynamodb = {"type": "dynamodb", "table_name": NAMES["TABLE"], "region": REGION}
        blocks: dict[str, Any] = {
            "source": {"type": "s3", "path": self.list_uri("dids.csv"), **s3},
            "record_types": ["app.bsky.feed.post", "app.bsky.feed.like"],
            "state": {"path": f"s3://{NAMES['STATE_BUCKET']}/{NAMES['STATE_PREFIX']}", **s3},
            "storage": dynamodb | {"endpoint_url": self._dynamodb.url},
            "processing": {"batch_size": 2},
        }
        for key, value in changes.items():
            blocks[key] = blocks.get(key, {}) | value
        return write_config(self._folder, self._network.network.plc_url, [], **blocks)

    def list_uri(self, key: str) -> str:
        return f"s3://{NAMES['LIST_BUCKET']}/{NAMES['LIST_PREFIX']}/{key}"

    def run(self, *words: object, code: int = 0) -> None:
        """One command on the config."""
        options = words[2:] if words[0] == "ledger" else words[1:]
        command = words[: len(words) - len(options)]
        assert run_command([*map(str, command), str(self.config), *map(str, options)]) == code, words
        self.recorded.commands.add(" ".join(map(str, command)))
        self.note(creating=command == ("ledger", "create"))

    def look(self, *, is_planned: bool) -> None:
        """One look of each sensor of the backfill, as Dagster's daemon has them. A failed look would ask too little."""
        repository = build_definitions(self._folder).get_repository_def()

        def looked(sensor: str) -> SensorExecutionData:
            with dg.build_sensor_context(instance=self._instance, repository_def=repository) as context:
                return repository.get_sensor_def(sensor).evaluate_tick(context)

        found = looked(names.source_sensor("study"))
        assert (found.skip_message == "the source is as the last plan has seen it") is is_planned, found
        assert bool(found.run_requests) is not is_planned
        assert bool(looked(names.shards_sensor("study")).dynamic_partitions_requests) is is_planned
        self.note()

    def note(self, *, creating: bool = False) -> None:
        """Sort in what has come since."""
        for asked in chain.from_iterable(map(asked_of_s3, self._s3.seen)):
            is_list = asked.resource.startswith(f"arn:aws:s3:::{NAMES['LIST_BUCKET']}")
            (self.recorded.source if is_list else self.recorded.state).append(asked)
        for seen in self._dynamodb.seen:
            is_creation = creating or seen.target == "CreateTable"
            (self.recorded.creation if is_creation else self.recorded.ledger).extend(asked_of_dynamodb(seen, REGION))
        self._s3.seen.clear()
        self._dynamodb.seen.clear()

    def large_parts(self) -> None:
        """A part in pieces; one whose key is taken, so that its upload is aborted; one that a dead run left."""
        place = AwsPlace(REGION, self._s3.url)
        bucket, prefix = NAMES["STATE_BUCKET"], NAMES["STATE_PREFIX"]
        store = S3Store(bucket, prefix, place, piece_bytes=5 * MIB)
        key = part_key("post", shard="x~0000", seq=1, epoch=1, unique=uuid.uuid4().hex)
        with store.stage(key) as file:
            file.write(os.urandom(5 * MIB + 1))
        store.publish([key])
        store.delete(key)
        left = part_key("post", shard="x~0000", seq=1, epoch=1, unique=uuid.uuid4().hex)
        aws_client("s3", self.lists).create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{left}")
        assert [info.key for info in store.staged()] == [left]
        store.discard_staged(left)
        assert store.staged() == []
        self.note()


def put_lists(commands: Commands, dids: list[str]) -> None:
    """The same list, as one object and below a prefix; both buckets."""
    client = aws_client("s3", commands.lists)
    for name in ("LIST_BUCKET", "STATE_BUCKET"):
        client.create_bucket(
            Bucket=NAMES[name], CreateBucketConfiguration={"LocationConstraint": commands.lists.region}
        )
    for key in ("dids.csv", "parts/1.csv"):
        body = "\n".join(["did", *dids]).encode()
        client.put_object(Bucket=NAMES["LIST_BUCKET"], Key=f"{NAMES['LIST_PREFIX']}/{key}", Body=body)


def run_all_commands(commands: Commands, did: str) -> None:
    """What a config meets with in its life."""
    commands.run("ledger", "create")
    commands.look(is_planned=False)
    commands.run("ledger", "create")
    for path in ("none.csv", "parts"):
        commands.write(source={"path": commands.list_uri(path)})
        commands.run("validate", "--source", code=2)
    for source in ({"path": commands.list_uri("parts/*.csv")}, {"path": commands.list_uri("parts/")}):
        commands.write(source=source | {"query": "SELECT did FROM source"})
        commands.run("validate", "--source")
    commands.write()
    commands.run("plan", "--limit", "2")
    commands.run("run", "--limit", "2")
    commands.look(is_planned=False)
    commands.run("plan")
    commands.look(is_planned=True)
    commands.run("run")
    commands.run("status")
    commands.run("plan", "--refresh")
    commands.look(is_planned=True)
    commands.run("run")
    commands.run("report", "--json")
    commands.run("retry", "--outcome", "deactivated")
    commands.run("run")
    commands.run("query", 'SELECT count(*) FROM post JOIN "like" USING (author)', "--json")
    commands.run("compact")
    commands.run("purge", "--did", did)
    commands.run("purge", "--list")
    commands.run("repair")
    commands.run("ledger", "counts")
    commands.run("ledger", "find", did)
    commands.run("ledger", "leases")
    commands.run("verify")
    commands.run("status", "--json")
    commands.look(is_planned=True)
    commands.large_parts()
