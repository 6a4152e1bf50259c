"""Servers for a whole test process, and a bucket or a table of one's own for a test."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.cli.aws_servers import CREDENTIALS, FOLDER, dynalite_server, ministack_server, moto_server

SERVERS = Path(__file__).parents[2] / FOLDER

MUST_NOT_SKIP = bool(os.environ.get("BACKFILL_TESTS_MUST_NOT_SKIP"))


def installed(program: str) -> None:
    """Skip, with the reason, where the servers are not installed; CI forbids that."""
    if not (SERVERS / program).exists() and not MUST_NOT_SKIP:
        pytest.skip(f"no {program}: run {FOLDER / 'install'}")


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Address of an S3."""
    installed(".venv/bin/moto_server")
    with moto_server(SERVERS) as url:
        yield url


@pytest.fixture(scope="session")
def ministack() -> Iterator[str]:
    """Address of a DynamoDB."""
    installed(".venv/bin/ministack")
    with ministack_server(SERVERS) as url:
        yield url


@pytest.fixture(scope="session")
def dynalite() -> Iterator[str]:
    """Address of another DynamoDB; npm brings it, so where there is no npm there is none."""
    if shutil.which("npm") is None:
        pytest.skip("no npm, which dynalite is installed by")
    installed("node_modules/.bin/dynalite")
    server: AbstractContextManager[str] = dynalite_server(SERVERS)
    with server as url:
        yield url


@pytest.fixture
def aws_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that the servers take, and nothing of this machine's own AWS configuration."""
    _set_environ(monkeypatch)


@pytest.fixture(scope="module")
def aws_module_environ() -> Iterator[None]:
    """The same for a module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _set_environ(monkeypatch)
        yield


def _set_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 tries again at once."""
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def bucket(moto: str, aws_environ: None) -> str:
    """A new bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    aws_client("s3", AwsPlace("us-east-1", moto)).create_bucket(Bucket=name)
    return name
