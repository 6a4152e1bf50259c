"""The policies of `deploy/aws/`: each request of the commands is within them, and nothing in them goes unused."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.cli.main import run_command
from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.records.part_file import part_key
from backfill_dagster.store.s3 import S3Store
from backfill_dagster_tests.aws.iam import ACCOUNT, Asked, Statement, asked_of_dynamodb, asked_of_s3, denied, unused
from backfill_dagster_tests.aws.iam import read_policy as read
from backfill_dagster_tests.aws.proxy import Proxy, proxied
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.repository import ROOT
from backfill_dagster_tests.road import write_config

FOLDER = ROOT / "deploy" / "aws"
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
    """What was asked, by what it was about."""

    source: list[Asked] = field(default_factory=list)
    state: list[Asked] = field(default_factory=list)
    ledger: list[Asked] = field(default_factory=list)
    creation: list[Asked] = field(default_factory=list)


class Commands:
    """Runs commands; what they ask is noted."""

    def __init__(self, folder: Path, network: ThreadedNetwork, s3: Proxy, dynamodb: Proxy) -> None:
        self._folder, self._network, self._s3, self._dynamodb = folder, network, s3, dynamodb
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
        self.note(creating=command == ("ledger", "create"))

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


@pytest.fixture(scope="module")
def recorded(
    moto: str, ministack: str, aws_module_environ: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    """Every kind of request that any command makes."""
    options = LocalnetOptions(hosts=1, repos=4, seed=3, median_records=6, max_records=20, states={"deactivated": 1})
    folder = tmp_path_factory.mktemp("policy")
    with (
        threaded_network(options) as network,
        proxied(moto) as s3,
        proxied(ministack) as dynamodb,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("BACKFILL_LOCK_DIR", str(folder / "locks"))
        commands = Commands(folder, network, s3, dynamodb)
        _put_lists(commands, network.network.dids)
        _all_commands(commands, network.network.active[0])
        yield commands.recorded


def _put_lists(commands: Commands, dids: list[str]) -> None:
    client = aws_client("s3", commands.lists)
    for name in ("LIST_BUCKET", "STATE_BUCKET"):
        client.create_bucket(
            Bucket=NAMES[name], CreateBucketConfiguration={"LocationConstraint": commands.lists.region}
        )
    for key in ("dids.csv", "parts/1.csv"):
        body = "\n".join(["did", *dids]).encode()
        client.put_object(Bucket=NAMES["LIST_BUCKET"], Key=f"{NAMES['LIST_PREFIX']}/{key}", Body=body)


def _all_commands(commands: Commands, did: str) -> None:
    commands.run("ledger", "create")
    commands.run("ledger", "create")
    for path in ("none.csv", "parts"):
        commands.write(source={"path": commands.list_uri(path)})
        commands.run("validate", "--source", code=2)
    for source in ({"path": commands.list_uri("parts/*.csv")}, {"path": commands.list_uri("parts/")}):
        commands.write(source=source | {"query": "SELECT did FROM source"})
        commands.run("validate", "--source")
    commands.write()
    commands.run("run", "--limit", "2")
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
    commands.large_parts()


def statements(name: str) -> list[Statement]:
    return read(FOLDER / f"{name}.json", NAMES)


@pytest.mark.parametrize(
    ("about", "policies"),
    [
        ("source", ["source-read"]),
        ("state", ["state-write"]),
        ("ledger", ["ledger"]),
        ("creation", ["ledger-create"]),
    ],
)
def test_requests_and_policies_are_the_same(recorded: Recorded, about: str, policies: list[str]) -> None:
    asked = getattr(recorded, about)
    allowed = [one for name in policies for one in statements(name)]
    assert denied(asked, allowed) == []
    assert list(unused(asked, allowed)) == []


def test_create_table_needs_both_policies(folder: Path, ministack: str, aws_environ: None) -> None:
    """The first plan creates the table, and nothing else of the ledger is asked for."""
    with proxied(ministack) as dynamodb:
        storage = {"type": "dynamodb", "table_name": f"t-{uuid.uuid4().hex[:8]}", "region": REGION}
        config = write_config(
            folder,
            "http://127.0.0.1:9",
            [],
            storage=storage | {"endpoint_url": dynamodb.url, "create_table": True},
        )
        assert run_command(["plan", str(config)]) == 0
        asked = [one for seen in dynamodb.seen for one in asked_of_dynamodb(seen, REGION)]
    own = NAMES | {"TABLE": str(storage["table_name"])}
    ledger, creation = (read(FOLDER / f"{name}.json", own) for name in ("ledger", "ledger-create"))
    assert denied(asked, [*ledger, *creation]) == []
    assert {one.action for one in denied(asked, ledger)} == {"dynamodb:CreateTable"}


def test_every_policy_is_tried() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == [
        "ledger",
        "ledger-create",
        "source-read",
        "state-write",
    ]
    placeholders = {name for name in NAMES if any(name in path.read_text() for path in FOLDER.glob("*.json"))}
    assert placeholders == set(NAMES)


@pytest.mark.parametrize(
    ("asked", "is_allowed"),
    [
        (Asked("s3:GetObject", "arn:aws:s3:::the-states/of/mine/study/log/a/1.json"), True),
        (Asked("s3:GetObject", "arn:aws:s3:::the-states/of/mine/studybook/1.json"), False),
        (Asked("s3:GetObject", "arn:aws:s3:::the-lists/of/mine/study/1.json"), False),
        (Asked("s3:GetObjectAcl", "arn:aws:s3:::the-states/of/mine/study/1.json"), False),
        (Asked("s3:ListBucket", "arn:aws:s3:::the-states", "of/mine/study/"), True),
        (Asked("s3:ListBucket", "arn:aws:s3:::the-states", "of/mine/"), False),
        (Asked("s3:ListBucket", "arn:aws:s3:::the-states"), False),
        (Asked("s3:DeleteBucket", "arn:aws:s3:::the-states"), False),
    ],
)
def test_the_judge_can_tell(asked: Asked, is_allowed: bool) -> None:
    assert (denied([asked], statements("state-write")) == []) is is_allowed
