"""`backfill compact`, `purge`, `repair` and `verify` from the terminal: what they say and what they exit with."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_dagster.cli.main import run_command
from backfill_dagster.config import load_config
from backfill_dagster.records.snapshot import snapshot_key
from backfill_dagster.state import BackfillState, open_state
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import Network, network_process
from backfill_dagster_tests.worker.upkeep import cut_short, flip, held, root_of

SETTINGS = {"record_types": ["app.bsky.feed.like"], "processing": {"batch_size": 2, "shard_size": 100}}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network_process(tmp_path_factory.mktemp("net"), hosts=1, repos=6, seed=5, median_records=10) as made:
        yield made


@pytest.fixture(scope="module")
def finished(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished backfill."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch().context() as patch:
        patch.setenv("BACKFILL_LOCK_DIR", str(folder / "locks"))
        config = network.write_config(folder, **SETTINGS)
        assert run_command(["run", str(config)]) == 0
    return folder


@pytest.fixture
def config(finished: Path, tmp_path: Path) -> Path:
    """The config of a copy of it."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy" / "study.yaml"


@pytest.fixture
def state(config: Path) -> Iterator[BackfillState]:
    with open_state(load_config(config)) as state:
        yield state


def the_shard(state: BackfillState) -> str:
    return next(path.name for path in (root_of(state) / "log").iterdir() if "~" in path.name)


def an_account(state: BackfillState) -> str:
    """One with rows."""
    dids = state.log(the_shard(state)).read().dids
    return next(did for did, (result, _) in dids.items() if result.records_total)


def one_line(text: str) -> str:
    assert text.startswith("backfill: ")
    assert text.count("\n") == 1
    return text


def test_compact(config: Path, state: BackfillState, backfill: Command) -> None:
    shard = the_shard(state)
    parts = len(state.log(shard).read().parts)
    status = backfill("status", config, "--json").json
    with held(state, shard) as owner:
        ran = backfill("compact", config, "--json")
        assert (ran.code, ran.json["parts_fewer"]) == (3, {})
        assert owner in ran.json["held"][shard]
        said = backfill("compact", config)
        assert (said.code, said.out.splitlines()[0]) == (3, "0 parts fewer in 0 shards")
        assert said.out.splitlines()[1].startswith(f"left out {shard}: ")
    ran = backfill("compact", config, "--json", "--shard", shard)
    fewer = parts - len(state.log(shard).read().parts)
    assert (ran.code, ran.json) == (0, {"parts_fewer": {shard: fewer}, "held": {}})
    assert fewer > 0
    assert backfill("compact", config).out == "0 parts fewer in 0 shards\n"
    assert backfill("status", config, "--json").json == status
    assert backfill("verify", config).out == "clean\n"


@pytest.mark.parametrize("options", [["--shard", "else.example~0000"], ["--target-mib", "0"], ["--did", "did:plc:a"]])
def test_compact_with_bad_options(config: Path, backfill: Command, options: list[str]) -> None:
    ran = backfill("compact", config, *options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def test_purge(config: Path, state: BackfillState, backfill: Command) -> None:
    did, shard = an_account(state), the_shard(state)
    other = f"at://{did}/app.bsky.feed.like/nothing"
    assert backfill("purge", config, "--list").out == "nothing was ever purged\n"
    ran = backfill("purge", config, "--did", did, "--did", did, "--uri", other, "--reason", "asked for")
    assert (ran.code, ran.out) == (0, "order 1: 1 account and 1 record purged, carried out in 1 shard\n")
    status = backfill("status", config, "--json").json
    assert status["outcomes"]["purged"] == 1
    assert backfill("run", config, "--json").json["requests"] == 0
    assert backfill("verify", config).out == "clean\n"
    again = backfill("purge", config, "--did", did, "--json")
    assert (again.code, again.json) == (0, {"order": 2, "shards": [], "held": {}})
    first, second = backfill("purge", config, "--list", "--json").json["orders"]
    assert (first["number"], first["dids"], first["uris"], first["reason"]) == (1, [did], [other], "asked for")
    assert first["by"] == f"{getpass.getuser()} on {socket.gethostname()}"
    assert (second["number"], second["reason"]) == (2, "")
    lines = backfill("purge", config, "--list").out.splitlines()
    assert lines[0] == f"1  {first['at']}  {first['by']}  asked for"
    assert lines[1:3] == [f"    {did}", f"    {other}"]
    assert lines[3].endswith("(no reason given)")
    assert shard in status["shards"]


def test_purge_while_somebody_works_on_the_shard(config: Path, state: BackfillState, backfill: Command) -> None:
    did, shard = an_account(state), the_shard(state)
    with held(state, shard) as owner:
        ran = backfill("purge", config, "--did", did)
    assert ran.code == 3
    order, left = ran.out.splitlines()
    assert order == "order 1: 1 account purged, carried out in 0 shards"
    assert left.startswith(f"left for the next run of {shard}: ")
    assert owner in left
    verified, status = backfill("verify", config), backfill("status", config)
    assert (verified.code, verified.out) == (1, "1 problem\n")
    assert "a purge has not been carried out here" in verified.err
    assert "Shards with work" in status.out
    assert backfill("run", config, "--json").json["outcomes"]["purged"] == 1
    assert backfill("verify", config).out == "clean\n"


def test_a_user_without_a_name(
    config: Path, state: BackfillState, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under a number."""

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert backfill("purge", config, "--did", an_account(state)).code == 0
    (order,) = backfill("purge", config, "--list", "--json").json["orders"]
    assert order["by"].startswith(f"uid {os.getuid()} on ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to purge: name accounts with --did or records with --uri"),
        (["--did", "alice.example"], "'alice.example' is not a DID"),
        (["--uri", "at://did:plc:a"], "is not the AT URI of a record"),
        (["--did", "did:plc:a", "--list"], "--list only shows the audit: leave out --did and --uri"),
    ],
)
def test_purge_of_nothing_that_there_is(config: Path, backfill: Command, options: list[str], said: str) -> None:
    ran = backfill("purge", config, *options)
    assert (ran.code, ran.out) == (2, "")
    assert said in one_line(ran.err)
    assert backfill("purge", config, "--list").out == "nothing was ever purged\n"


@pytest.mark.parametrize("command", [["compact"], ["purge", "--did", "did:plc:a"], ["purge", "--list"], ["repair"]])
def test_before_there_is_a_plan(folder: Path, network: Network, backfill: Command, command: list[str]) -> None:
    name, *options = command
    ran = backfill(name, network.write_config(folder, **SETTINGS), *options)
    assert (ran.code, ran.out) == (2, "")
    assert "nothing is planned yet" in one_line(ran.err)
    assert not (folder / "data").exists()


def test_repair(config: Path, state: BackfillState, backfill: Command) -> None:
    shard, log = the_shard(state), state.log(the_shard(state))
    assert backfill("repair", config).out == "nothing to repair\n"
    assert backfill("repair", config, "--json").json == {
        "state_json_restored": False,
        "reopened": 0,
        "shards": {},
        "orders": {},
        "held": {},
    }
    records = backfill("status", config, "--json").json["records"]
    flip(state, next(iter(log.read().parts)))
    cut_short(state, log.key(2))
    log.write_snapshot(log.read(voids=[2]))
    flip(state, snapshot_key(shard, log.last_seq()))
    verified = backfill("verify", config)
    assert verified.code == 1
    assert f"{log.key(2)} can't be read" in verified.err
    with held(state, shard) as owner:
        left_out = backfill("repair", config)
        assert left_out.code == 3
        assert left_out.out.startswith(f"left out {shard}: ")
        assert owner in left_out.out
    ran = backfill("repair", config)
    assert ran.code == 3
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"{shard}: entry 2 can't be read: ")
    assert lines[0].endswith(": void")
    assert f"{shard}: 1 wrong snapshot removed" in lines
    assert lines[-1].endswith(f"left to fetch anew: `backfill run {config}`")
    assert backfill("verify", config).out == "clean\n"
    done = backfill("run", config, "--json")
    assert (done.code, done.json["records"]) == (0, records)
    assert backfill("repair", config).out == "nothing to repair\n"


@pytest.mark.parametrize("has_ledger", [True, False], ids=["ledger", "no_ledger"])
@pytest.mark.parametrize(
    "content", [None, b"", b'{"name": "study"', b'{"name": 7}'], ids=["gone", "empty", "cut", "odd"]
)
def test_a_lost_state_json(config: Path, backfill: Command, content: bytes | None, has_ledger: bool) -> None:
    root = config.parent / "data" / "study"
    before = json.loads((root / "state.json").read_bytes())
    (root / "state.json").unlink() if content is None else (root / "state.json").write_bytes(content)
    if not has_ledger:
        for path in root.glob("ledger.sqlite*"):
            path.unlink()
    for command in ("verify", "run", "status"):
        ran = backfill(command, config)
        assert (ran.code, ran.out) == (1, ""), command
        assert "state.json" in one_line(ran.err)
        assert "`backfill repair`" in ran.err
    ran = backfill("repair", config)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "state.json: written again"
    after = json.loads((root / "state.json").read_bytes())
    assert (after["name"], after["schema_version"]) == (before["name"], before["schema_version"])
    assert (after["state_id"] == before["state_id"]) is has_ledger
    assert backfill("verify", config).out == "clean\n"
    assert backfill("run", config, "--json").json["requests"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "other"}, "holds the state of the backfill 'other', not of 'study'"),
        ({"state_id": "else"}, "belongs to the state "),
        ({"schema_version": 99}, "has schema version 99"),
    ],
    ids=["name", "id", "version"],
)
def test_a_foreign_state_json_is_nobody_s_to_repair(
    config: Path, backfill: Command, change: dict[str, object], said: str
) -> None:
    path = config.parent / "data" / "study" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    content = path.read_bytes()
    for command in ("verify", "repair", "run"):
        ran = backfill(command, config)
        assert (ran.code, ran.out) == (1, "")
        assert said in one_line(ran.err)
    assert path.read_bytes() == content


def test_repair_without_a_plan(config: Path, backfill: Command) -> None:
    shutil.rmtree(config.parent / "data" / "study" / "plan")
    assert "the logs know DIDs, and there is no plan" in backfill("verify", config).err
    ran = backfill("repair", config)
    assert (ran.code, ran.out) == (2, "")
    assert "there is no plan in " in one_line(ran.err)


def test_a_generation_of_the_plan_that_has_another_bit(config: Path, state: BackfillState, backfill: Command) -> None:
    path = root_of(state) / "plan" / "000001.parquet"
    content = bytearray(path.read_bytes())
    at = content.index(b"did:plc:") + 12
    content[at] ^= 1
    path.write_bytes(content)
    verified = backfill("verify", config)
    assert verified.code == 1
    assert "000001.parquet can't be read as a generation of the plan" in verified.err
