"""No secret is ever logged, said, or stored: not by a command, not in Dagster's runs, not in state or ledger."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._serdes import serialize_value

from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster_tests.aws.conftest import PROCESSING, RECORD_TYPES
from backfill_dagster_tests.aws.place import Place
from backfill_dagster_tests.aws.proxy import Proxy, Seen, Trouble, proxied
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.orchestration.network import ThreadedNetwork
from backfill_dagster_tests.road import write_config

SECRET = "wJalrXUtnFEMI0K7MDENG0bPxRfiCYsecretkey1"
TOKEN = "FwoGZXIvYXdzEBYaDtokenthatnobodymaysee"

pytestmark = pytest.mark.usefixtures("no_backoff")


class Heard(logging.Handler):
    """Everything that any logger says, down to DEBUG, as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(message)s %(fields)s", defaults={"fields": ""}))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def secret_environ(aws_environ: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


@pytest.fixture
def place(place: Place, secret_environ: None) -> Place:
    """One that is reached with the secret."""
    return place


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made


def config_of(folder: Path, network: ThreadedNetwork, place: Place) -> Path:
    place.put_list(network.network.dids)
    return write_config(
        folder,
        network.network.plc_url,
        [],
        record_types=RECORD_TYPES,
        processing=PROCESSING,
        monitoring={"log_level": "DEBUG"},
        **place.blocks(create_table=True),
    )


def stored(place: Place) -> str:
    """All of the state and of the ledger."""
    objects = "".join(place.get(key).decode("latin-1") for key in place.objects())
    return objects + json.dumps(place.items(), default=str)


def test_commands(
    folder: Path,
    network: ThreadedNetwork,
    place: Place,
    backfill: Command,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When all is well, when access is denied, when a signature is wrong; with tracebacks too."""
    heard, root = Heard(), logging.getLogger()
    monkeypatch.setattr(root, "handlers", [*root.handlers, heard])
    monkeypatch.setattr(root, "level", logging.DEBUG)
    config = config_of(folder, network, Place(proxy.url, place.dynamodb, place.bucket, place.prefix, place.table))
    said = []

    def run(*words: object, code: int = 0) -> str:
        ran = backfill(words[0], config, *words[1:])
        assert ran.code == code, ran
        said.append(ran.out + ran.err)
        return ran.err

    for words in (["validate", "--source"], ["plan"], ["run"], ["status", "--json"], ["report", "--json"], ["verify"]):
        run(*words)
    for trouble, text in ((Trouble.DENIED, "AccessDenied"), (Trouble.WRONG_SIGNATURE, "SignatureDoesNotMatch")):
        proxy.choose = chosen(trouble)
        for words in (["plan"], ["run"], ["query", "SELECT count(*) FROM post"]):
            assert text in run(*words, "--debug", code=1)
        run("validate", "--source", code=2)
    everything = "".join([*said, *heard.lines, stored(place)])
    assert len(heard.lines) > 100, "boto3's own words are among them"
    assert SECRET not in everything
    ours = "".join([*said, *(line for line in heard.lines if not line.startswith("botocore.")), stored(place)])
    assert TOKEN not in ours, "botocore shows the headers that it signs, at DEBUG"


def chosen(trouble: Trouble) -> Any:
    """Trouble for whatever is read or written: an answer to HEAD has no words."""

    def choose(seen: Seen) -> Trouble | None:
        return trouble if seen.method in ("GET", "PUT") else None

    return choose


def test_dagster(tmp_path: Path, network: ThreadedNetwork, place: Place, proxy: Proxy) -> None:
    """Neither the definitions nor what an instance keeps of runs, good ones and bad ones."""
    home = tmp_path / "home"
    home.mkdir()
    project = tmp_path / "project"
    project.mkdir()
    config_of(project, network, Place(proxy.url, place.dynamodb, place.bucket, place.prefix, place.table))
    defs = build_definitions(project)
    with dg.instance_for_test(temp_dir=str(home)) as instance:
        job = defs.resolve_job_def("plan_study")
        assert job.execute_in_process(instance=instance).success
        key = instance.get_dynamic_partitions("did_shards__study")[0]
        shard_job = defs.resolve_job_def("backfill_study")
        assert shard_job.execute_in_process(instance=instance, partition_key=key).success
        proxy.choose = chosen(Trouble.DENIED)
        assert not job.execute_in_process(instance=instance, raise_on_error=False).success
        runs = list(instance.get_runs())
        kept = [serialize_value(run) for run in runs]
        kept += [str(entry) for run in runs for entry in instance.all_logs(run.run_id)]
        kept += [serialize_value(one.get_job_snapshot()) for one in (job, shard_job)]
    assert len(runs) == 3
    kept += [path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file()]
    everything = "".join([*kept, stored(place)])
    assert "AccessDenied" in everything
    for secret in (SECRET, TOKEN):
        assert secret not in everything
