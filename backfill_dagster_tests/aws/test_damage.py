"""Objects and items that are lost, foreign or not to be had: which command says what, and what mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from backfill_dagster.aws import AwsError
from backfill_dagster.records.part_file import part_key
from backfill_dagster.store.s3_filesystem import S3Files
from backfill_dagster_tests.aws.conftest import rows_of
from backfill_dagster_tests.aws.place import Place, new_place
from backfill_dagster_tests.aws.proxy import Proxy, Trouble, proxied
from backfill_dagster_tests.cli.conftest import Command, Ran
from backfill_dagster_tests.orchestration.network import ThreadedNetwork

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")


@pytest.fixture
def own(finished: tuple[Place, Path]) -> Place:
    """A copy of the finished backfill."""
    return finished[0].copy()


def config_of(finished: tuple[Place, Path], folder: Path, place: Place, **storage: object) -> Path:
    """The finished backfill's config, at another place."""
    content = yaml.safe_load(finished[1].read_text())
    content["backfill"] |= place.blocks(**storage)
    path = folder / finished[1].name
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def config(finished: tuple[Place, Path], folder: Path, own: Place) -> Path:
    return config_of(finished, folder, own)


@pytest.fixture
def s3_proxy(moto: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made


def refused(ran: Ran, *said: str) -> None:
    """Exit 1 with one line that says this."""
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1), ran
    for text in said:
        assert text in ran.err


def retried(config: Path, backfill: Command) -> Ran:
    """A run that has something to do in every shard."""
    assert backfill("retry", config, "--outcome", "complete").code == 0
    return backfill("run", config, "--json")


def test_a_lost_part(own: Place, config: Path, backfill: Command, network: ThreadedNetwork) -> None:
    key = own.objects("records/")[0]
    own.delete(key)
    verified = backfill("verify", config)
    assert (verified.code, key in verified.err) == (1, True)
    assert backfill("status", config, "--json").json["lost_parts"] == 1
    refused(retried(config, backfill), f"s3://{own.bucket}/{own.prefix}/{key} is missing", "`backfill repair`")
    mended = backfill("repair", config)
    assert (mended.code, f"{key}: " in mended.out) == (3, True)
    ran = backfill("run", config, "--json")
    assert (ran.code, ran.json["records"]) == (0, rows_of(network.network))
    assert backfill("verify", config).out == "clean\n"


def test_a_lost_log_entry(own: Place, config: Path, backfill: Command, network: ThreadedNetwork) -> None:
    key = next(key for key in own.objects("log/localhost") if key.endswith("/00000002.json"))
    own.delete(key)
    verified = backfill("verify", config)
    assert (verified.code, key in verified.err) == (1, True)
    for words in (["run", config], ["status", config], ["retry", config, "--outcome", "complete"]):
        refused(backfill(*words), key, "`backfill repair`")
    assert backfill("repair", config).code == 3
    ran = backfill("run", config, "--json")
    assert (ran.code, ran.json["records"]) == (0, rows_of(network.network))
    assert backfill("verify", config).out == "clean\n"


def test_a_lost_state_json(own: Place, config: Path, backfill: Command) -> None:
    before = json.loads(own.get("state.json"))
    own.delete("state.json")
    for command in ("verify", "run", "status", "plan"):
        refused(backfill(command, config), "state.json", "`backfill repair`")
    assert backfill("repair", config).out.startswith("state.json: written again\n")
    assert json.loads(own.get("state.json")) == before
    assert backfill("verify", config).out == "clean\n"


def test_a_state_json_whose_reply_gets_lost_is_ones_own(
    finished: tuple[Place, Path], folder: Path, own: Place, backfill: Command, s3_proxy: Proxy
) -> None:
    config = config_of(finished, folder, replace(own, s3=s3_proxy.url))
    before = own.get("state.json")
    own.delete("state.json")
    lost = [Trouble.LOST_REPLY]
    s3_proxy.choose = lambda seen: lost.pop() if lost and seen.method == "PUT" else None
    assert backfill("repair", config).out.startswith("state.json: written again\n")
    puts = [seen for seen in s3_proxy.seen if seen.method == "PUT" and seen.path.endswith("/state.json")]
    assert len(puts) == 2, "boto3's second try meets the first one's object"
    assert own.get("state.json") == before
    assert backfill("repair", config).out == "nothing to repair\n"


@pytest.mark.parametrize("command", ["run", "repair"])
def test_an_empty_table_is_written_again_from_the_logs(
    own: Place, config: Path, backfill: Command, command: str
) -> None:
    def dids() -> list[dict[str, object]]:
        return sorted((one for one in own.items() if "outcome" in one), key=lambda one: str(one["did"]))

    before = dids()
    own.empty_table()
    verified = backfill("verify", config)
    assert (verified.code, "the ledger" in verified.err) == (1, True)
    assert backfill(command, config).code == 0
    assert dids() == before
    assert backfill("verify", config).out == "clean\n"
    assert sum(backfill("ledger", "counts", config, "--json").json["outcomes"].values()) == len(before)


def test_a_table_that_belongs_to_another_state(
    own: Place, finished: tuple[Place, Path], folder: Path, backfill: Command, moto: str, ministack: str
) -> None:
    """Its ledger says whose it is: neither is the new state begun, nor is the other's table touched."""
    stranger = new_place(moto, ministack)
    stranger.put_list(["did:plc:a"])
    config = config_of(finished, folder, Place(moto, ministack, stranger.bucket, stranger.prefix, own.table))
    before = own.items()
    refused(backfill("plan", config), "the ledger belongs to the state", "state.json is missing")
    refused(backfill("run", config), "state.json is missing")
    assert (own.items(), stranger.objects()) == (before, [])
    renamed = yaml.safe_load(config.read_text())
    renamed["backfill"]["name"] = "other"
    renamed["backfill"]["source"] = {"type": "inline", "dids": []}
    config.write_text(yaml.safe_dump(renamed))
    assert backfill("plan", config).code == 0, "a table holds any number of backfills"


def test_a_state_that_belongs_to_another_backfill(config: Path, backfill: Command, own: Place) -> None:
    config.write_text(config.read_text().replace("name: study", "name: other"))
    before = own.items()
    for command in ("plan", "run", "verify", "repair"):
        refused(backfill(command, config), "holds the state of the backfill 'study', not of 'other'")
    assert own.items() == before


def test_no_table(own: Place, finished: tuple[Place, Path], folder: Path, backfill: Command) -> None:
    own.dynamodb_client.delete_table(TableName=own.table)
    config = config_of(finished, folder, own)
    for command in ("plan", "run", "verify", "status", "repair"):
        refused(backfill(command, config), f"{own.table} at ", "no such table; `backfill ledger create CONFIG`")
    assert backfill("ledger", "create", config).code == 0
    assert backfill("repair", config).code == 0
    assert backfill("verify", config).out == "clean\n"


def test_no_bucket(
    finished: tuple[Place, Path], folder: Path, backfill: Command, place: Place, own: Place, network: ThreadedNetwork
) -> None:
    missing = Place(place.s3, place.dynamodb, "bucket-that-nobody-has", "states/x", own.table)
    config = config_of(finished, folder, missing)
    validated = backfill("validate", "--source", config)
    assert (validated.code, "NoSuchBucket" in validated.err) == (2, True)
    content = yaml.safe_load(config.read_text())
    content["backfill"]["source"] = {"type": "inline", "dids": []}
    config.write_text(yaml.safe_dump(content))
    for command in ("plan", "run", "status", "verify"):
        refused(backfill(command, config), "s3://bucket-that-nobody-has/", "create the bucket, or correct its name")


def test_denied(finished: tuple[Place, Path], folder: Path, own: Place, backfill: Command, s3_proxy: Proxy) -> None:
    config = config_of(finished, folder, Place(s3_proxy.url, own.dynamodb, own.bucket, own.prefix, own.table))
    assert backfill("retry", config, "--outcome", "complete").code == 0
    s3_proxy.choose = lambda seen: Trouble.DENIED
    assert backfill("validate", "--source", config).code == 2
    for command in ("plan", "run", "verify", "status", "repair"):
        refused(backfill(command, config), f"s3://{own.bucket}/{own.prefix}/", "deploy/aws/ has a policy")
    s3_proxy.choose = lambda seen: Trouble.DENIED if seen.method == "PUT" else None
    refused(backfill("run", config), "AccessDenied", "deploy/aws/ has a policy")
    s3_proxy.choose = lambda seen: None
    assert backfill("run", config).code == 0
    assert backfill("verify", config).out == "clean\n"


def test_parts_that_nobody_may_read(
    finished: tuple[Place, Path], folder: Path, own: Place, backfill: Command, s3_proxy: Proxy
) -> None:
    """`verify` says of each why, and not what follows from it; `repair` takes none for lost."""
    config = config_of(finished, folder, Place(s3_proxy.url, own.dynamodb, own.bucket, own.prefix, own.table))
    s3_proxy.choose = lambda seen: Trouble.DENIED if seen.method == "GET" and "/records/" in seen.path else None
    verified = backfill("verify", config)
    lines = verified.err.splitlines()
    assert (verified.code, len(lines)) == (1, len(own.objects("records/")))
    assert all("AccessDenied" in line and "deploy/aws/ has a policy" in line for line in lines)
    refused(backfill("repair", config), "AccessDenied", "deploy/aws/ has a policy")
    s3_proxy.choose = lambda seen: None
    assert backfill("verify", config).out == "clean\n"


@pytest.mark.parametrize("trouble", [Trouble.ARCHIVED, Trouble.DENIED, Trouble.EXPIRED])
def test_a_query_on_parts_that_nobody_may_read(
    finished: tuple[Place, Path], folder: Path, own: Place, backfill: Command, s3_proxy: Proxy, trouble: Trouble
) -> None:
    """One line that names the object, and no traceback of DuckDB's."""
    config = config_of(finished, folder, Place(s3_proxy.url, own.dynamodb, own.bucket, own.prefix, own.table))
    s3_proxy.choose = lambda seen: trouble if seen.method == "GET" and "/records/" in seen.path else None
    code = {Trouble.ARCHIVED: "InvalidObjectState", Trouble.DENIED: "AccessDenied", Trouble.EXPIRED: "ExpiredToken"}
    ran = backfill("query", config, "SELECT count(DISTINCT author) FROM post")
    refused(ran, f"can't read s3://{own.bucket}/{own.prefix}/records/", code[trouble])
    assert "Traceback" not in ran.err


def test_credentials_that_go_away_in_the_middle_of_a_query(
    config: Path, own: Place, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = S3Files._open

    def refusing(files: S3Files, path: str, mode: str = "rb", **options: object) -> object:
        if "/records/" in path:
            raise AwsError("can't open S3: Unable to locate credentials; see AWS_PROFILE")
        return opened(files, path, mode, **options)

    monkeypatch.setattr(S3Files, "_open", refusing)
    ran = backfill("query", config, "SELECT count(DISTINCT author) FROM post")
    refused(
        ran, f"can't read s3://{own.bucket}/{own.prefix}: ", "can't open S3: Unable to locate credentials; see AWS_"
    )
    assert "Traceback" not in ran.err


def test_no_credentials(config: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "AWS_ACCESS_KEY_ID" in backfill("validate", "--source", config).err
    for command in ("plan", "run", "verify", "status"):
        refused(backfill(command, config), "Unable to locate credentials; see AWS_ACCESS_KEY_ID")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_store_that_ignores_conditions(
    finished: tuple[Place, Path], folder: Path, own: Place, backfill: Command, moto: str, command: str
) -> None:
    """Also of a state that has begun elsewhere: it may have been moved there."""
    before = own.objects()
    with proxied(moto) as proxy:
        proxy.strip_headers = frozenset({"if-none-match"})
        config = config_of(finished, folder, Place(proxy.url, own.dynamodb, own.bucket, own.prefix, own.table))
        refused(
            backfill(command, config), f"s3://{own.bucket}/{own.prefix} ignores put-if-absent", "use a local folder"
        )
        assert own.objects() == before
        fresh = Place(proxy.url, own.dynamodb, own.bucket, f"{own.prefix}-new", f"{own.table}-new")
        config = config_of(finished, folder, fresh, create_table=True)
        refused(backfill(command, config), f"s3://{own.bucket}/{own.prefix}-new ignores put-if-absent")
    assert replace(own, prefix=fresh.prefix).objects() == []


def test_an_upload_that_a_dead_run_left(own: Place, config: Path, backfill: Command) -> None:
    shard = next(key for key in own.objects("log/localhost")).split("/")[1]
    key = part_key("like", shard=shard, seq=9, epoch=1, unique="b0b0")
    foreign = f"nested/{key}"
    own.begin_upload(key)
    own.begin_upload(foreign)
    verified = backfill("verify", config)
    assert (verified.code, f"{key}, in staging, was never committed" in verified.err) == (1, True)
    assert foreign not in verified.err
    assert sorted(own.uploads()) == sorted([foreign, key])
    assert retried(config, backfill).code == 0
    assert own.uploads() == [foreign], "what another state has begun below this one is not ours"
