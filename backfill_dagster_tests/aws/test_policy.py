"""The policies of `deploy/aws/`: each request of the commands is within them, and nothing in them goes unused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import click
import dagster as dg
import pytest

from backfill_dagster.cli.main import cli, run_command
from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster_tests.aws.asking import NAMES, REGION, Commands, Recorded, put_lists, run_all_commands
from backfill_dagster_tests.aws.iam import Asked, Statement, asked_of_dynamodb, denied, unused
from backfill_dagster_tests.aws.iam import read_policy as read
from backfill_dagster_tests.aws.proxy import proxied
from backfill_dagster_tests.orchestration.network import threaded_network
from backfill_dagster_tests.repository import ROOT
from backfill_dagster_tests.road import write_config

FOLDER = ROOT / "deploy" / "aws"


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
        dg.instance_for_test() as instance,
    ):
        patch.delenv("DAGSTER_HOME")  # plans from the terminal don't know it
        patch.setenv("BACKFILL_LOCK_DIR", str(folder / "locks"))
        commands = Commands(folder, network, s3, dynamodb, instance)
        put_lists(commands, network.network.dids)
        run_all_commands(commands, network.network.active[0])
        yield commands.recorded


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


def test_every_command_that_takes_a_config_is_run(recorded: Recorded) -> None:
    all_commands = set()
    for name, command in cli.commands.items():
        parts = command.commands if isinstance(command, click.Group) else {"": command}
        all_commands |= {f"{name} {part}".rstrip() for part, one in parts.items() if takes_config(one)}
    assert recorded.commands == all_commands


def takes_config(command: click.Command) -> bool:
    return any(param.name in ("config_path", "config_paths") for param in command.params)


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
