"""An endpoint in the AWS environment that is no address: one line that names the variable."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backfill_dagster.aws import AwsError, AwsPlace, AwsService, aws_client, aws_errors
from backfill_dagster_tests.cli.conftest import Command, backfill  # noqa: F401 - a fixture
from backfill_dagster_tests.road import write_config

pytestmark = pytest.mark.usefixtures("aws_environ")

REMEDY = "correct it, or take it away to go to AWS itself"


def refusal(service: AwsService, place: AwsPlace) -> AwsError:
    with pytest.raises(AwsError) as caught, aws_errors("open it"):
        aws_client(service, place)
    return caught.value


@pytest.mark.parametrize("value", ["nonsense", "host:9000", "ftp://host", "http://", "http://host:x", "http://host/s3"])
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_of_s3(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    refused = refusal("s3", AwsPlace())
    assert str(refused) == (
        f"can't open it: Invalid endpoint configuration: {name} is no http:// or https:// URL without path, user, "
        f"query and fragment; {REMEDY}"
    )
    assert refused.may_have_happened is False


WITH_SECRETS = [
    "http://user:hunter2@host",
    "http://user:hunter2@host:9000/",
    "http://user:hunter2@",
    "http://user:hunter2@host:x",
    "http://host?key=hunter2",
    "http://host#hunter2",
    "ftp://user:hunter2@host",
    "user:hunter2@host",
]


@pytest.mark.parametrize("value", WITH_SECRETS)
@pytest.mark.parametrize("service", ["s3", "dynamodb"])
def test_a_secret_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, service: AwsService, value: str) -> None:
    """Neither by the error nor by a traceback of it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", value)
    refused = refusal(service, AwsPlace())
    assert ": AWS_ENDPOINT_URL is no http:// or https:// URL without " in str(refused)
    assert "hunter2" not in "".join(traceback.format_exception(refused))


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"])
def test_of_dynamodb(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "nonsense")
    assert f"{name} is no http:// or https:// URL" in str(refusal("dynamodb", AwsPlace()))


def test_the_configs_own_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    made = aws_client("s3", AwsPlace("us-east-1", "http://127.0.0.1:9000"))
    assert made.meta.endpoint_url == "http://127.0.0.1:9000"
    assert ": endpoint_url is no " in str(refusal("s3", AwsPlace("us-east-1", "nonsense")))


@pytest.mark.parametrize("service", ["s3", "dynamodb"])
def test_the_region_of_the_environment(monkeypatch: pytest.MonkeyPatch, service: AwsService) -> None:
    """By either name; boto3 itself knows one of them."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert aws_client(service, AwsPlace()).meta.region_name == "eu-west-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert aws_client(service, AwsPlace()).meta.region_name == "eu-west-2"
    assert aws_client(service, AwsPlace("eu-west-3")).meta.region_name == "eu-west-3"


@pytest.mark.parametrize("region", ["not a region", "-x"])
def test_what_boto3_says_of_a_region_stays(region: str) -> None:
    assert "region" in str(refusal("s3", AwsPlace(region)))


@pytest.mark.parametrize(
    ("blocks", "name"),
    [
        ({"state": {"path": "s3://bucket/data"}}, "AWS_ENDPOINT_URL_S3"),
        ({"storage": {"type": "dynamodb", "table_name": "results"}}, "AWS_ENDPOINT_URL_DYNAMODB"),
        ({"source": {"type": "s3", "path": "s3://bucket/a.csv"}}, "AWS_ENDPOINT_URL_S3"),
    ],
    ids=["state", "ledger", "list"],
)
def test_commands(
    folder: Path,
    backfill: Command,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    blocks: dict[str, Any],
    name: str,
) -> None:
    storage = {"storage": {"path": str(folder / "ledger.sqlite")}} if "state" in blocks else {}
    config = write_config(folder, "http://127.0.0.1:9", ["did:plc:a"], **blocks, **storage)
    monkeypatch.setenv(name, "nonsense")
    for command in ("plan", "run", "status", "verify"):
        ran = backfill(command, config)
        if "source" in blocks and command != "plan":
            continue
        assert (ran.code, ran.out, ran.err.count("\n")) == (2 if "source" in blocks else 1, "", 1), ran
        assert f"{name} is no http:// or https:// URL" in ran.err


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB"])
@pytest.mark.parametrize("options", [[], ["--debug"]], ids=["plain", "debug"])
def test_no_command_repeats_a_secret(
    folder: Path,
    backfill: Command,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    options: list[str],
) -> None:
    config = write_config(
        folder,
        "http://127.0.0.1:9",
        [],
        source={"type": "s3", "path": "s3://bucket/a.csv"},
        state={"path": "s3://bucket/data"},
        storage={"type": "dynamodb", "table_name": "results", "create_table": True},
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(name, "http://user:hunter2@127.0.0.1:9")
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    said = ""
    for words in (["validate"], ["validate", "--source"], ["plan"], ["status"], ["verify"], ["ledger", "create"]):
        ran = backfill(*words, config, *options)
        said += ran.out + ran.err
    assert f"{name} is no http:// or https:// URL" in said
    assert "hunter2" not in said + caplog.text
