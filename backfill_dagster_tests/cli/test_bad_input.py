"""Bad input: one line with what happened and what to do, the right exit code, no traceback unless asked for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import Network
from backfill_dagster_tests.road import write_config

NOWHERE = "http://127.0.0.1:9"
SOURCE: dict[str, Any] = {"type": "sqlite", "path": "dids.sqlite"}

BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "missing source": ({"source": {"type": "sqlite", "path": "none.sqlite"}}, "none.sqlite doesn't exist"),
    "missing table": ({"source": SOURCE | {"query": "SELECT did FROM nope"}}, "no such table: nope; tables: dids(did"),
    "no did column": ({"source": SOURCE | {"query": "SELECT did AS a, n FROM dids"}}, "columns found: a, n"),
    "two statements": ({"source": SOURCE | {"query": "SELECT did FROM dids; SELECT 1"}}, "one single SELECT"),
    "unknown key": ({"source": SOURCE, "processing": {"batchsize": 3}}, "did you mean batch_size?"),
    "decode pool": (
        {"source": SOURCE, "processing": {"decode_processes": 2}},
        "decode_processes over 0 is not available",
    ),
}


@pytest.fixture
def source(folder: Path) -> Path:
    path = folder / "dids.sqlite"
    base = sqlite3.connect(path)
    with base:
        base.execute("CREATE TABLE dids (did TEXT, n INTEGER)")
    base.close()
    return path


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_each_is_one_line_and_exit_2(folder: Path, source: Path, backfill: Command, name: str, command: str) -> None:
    changes, said = BAD_CONFIGS[name]
    ran = backfill(command, write_config(folder, NOWHERE, [], **changes))
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.startswith("backfill: ")
    assert ran.err.count("\n") == 1
    assert not list(folder.glob("data/*/log/*"))


def test_a_missing_config_says_how_to_get_one(folder: Path, backfill: Command) -> None:
    ran = backfill("run", folder / "none.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"backfill: {folder}/none.yaml: no such file; `backfill init` writes a starter\n"


def test_a_folder_is_no_config(folder: Path, backfill: Command) -> None:
    ran = backfill("run", folder)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "a config is one YAML file" in ran.err


def test_unreadable_yaml_names_the_line(folder: Path, backfill: Command) -> None:
    path = folder / "broken.yaml"
    path.write_text("backfill:\n  name: [\n")
    ran = backfill("status", path)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "line 3: not valid YAML" in ran.err


def test_all_problems_of_a_file_come_at_once(folder: Path, backfill: Command) -> None:
    path = write_config(folder, NOWHERE, [], nmae="x", processing={"batch_size": 0})
    ran = backfill("validate", path)
    assert (ran.code, ran.out) == (2, "")
    assert f"{path}: " in ran.err
    assert "backfill.nmae" in ran.err
    assert "backfill.processing.batch_size" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument 'CONFIG'; `backfill run --help` shows what there is"),
        (["frob"], "No such command 'frob'; `backfill --help` shows what there is"),
        (["plan", "x.yaml", "--limit", "0"], "'--limit': 0 is not in the range x>=1; `backfill plan --help`"),
        (["run", "x.yaml", "--nope"], "No such option '--nope'"),
        (["retry", "x.yaml", "--outcome", "purged"], "'purged' is not one of 'complete'"),
    ],
)
def test_bad_usage_is_one_line_too(backfill: Command, arguments: list[str], said: str) -> None:
    ran = backfill(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err


def test_without_arguments_there_is_help_and_exit_2(backfill: Command) -> None:
    ran = backfill()
    assert ran.code == 2
    assert "Commands:" in ran.err


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback_wherever_it_stands(folder: Path, backfill: Command, place: str) -> None:
    line = ["run", folder / "none.yaml"]
    ran = backfill(*(["--debug", *line] if place == "before" else [*line, "--debug"]))
    assert ran.code == 2
    assert ran.err.startswith("Traceback (most recent call last):\n")
    assert "ConfigError" in ran.err
    assert ran.err.rstrip().splitlines()[-1].startswith("backfill: ")


def test_a_defect_is_one_line_that_says_it_is_one(
    folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(paths: Iterable[Path]) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("backfill_dagster.cli.validate.load_configs", broken)
    ran = backfill("validate", folder / "x.yaml")
    assert (ran.code, ran.err) == (1, "backfill: unexpected RuntimeError: odd (a defect; --debug shows where)\n")


def test_an_error_of_the_system_names_the_file(
    folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(paths: Iterable[Path]) -> None:
        raise PermissionError(13, "Permission denied", str(next(iter(paths))))

    monkeypatch.setattr("backfill_dagster.cli.validate.load_configs", broken)
    ran = backfill("validate", folder / "x.yaml")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith(f"backfill: {folder}/x.yaml: Permission denied; ")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_an_empty_list_is_said_and_fine(folder: Path, source: Path, backfill: Command, command: str) -> None:
    ran = backfill(command, write_config(folder, NOWHERE, [], source=SOURCE))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{source} (SELECT did FROM dids): no DIDs, so there is nothing to fetch\n"
    assert not list(folder.glob("data/study/plan/*"))


def test_an_empty_list_in_json(folder: Path, source: Path, backfill: Command) -> None:
    config = write_config(folder, NOWHERE, [], source=SOURCE)
    plan, run = backfill("plan", config, "--json"), backfill("run", config, "--json")
    assert (plan.code, plan.json["dids"], plan.json["shards"]) == (0, 0, 0)
    assert (run.code, run.json["dids"], run.json["outcomes"], run.json["requests"]) == (0, 0, {}, 0)


def test_an_unknown_shard_names_the_known_ones(config: Path, network: Network, backfill: Command) -> None:
    ran = backfill("run", config, "--shard", "nowhere~0000")
    ports = [url.rpartition(":")[2] for url in network.host_urls]
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert all(f"localhost_{port}~0000" in ran.err for port in ports)


def test_retry_of_an_unknown_host_names_the_known_ones(config: Path, network: Network, backfill: Command) -> None:
    backfill("plan", config)
    ran = backfill("retry", config, "--host", "nowhere")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert all(f"localhost_{url.rpartition(':')[2]}" in ran.err for url in network.host_urls)


def test_a_bad_car_is_no_network(folder: Path, backfill: Command) -> None:
    car = folder / "bad.car"
    car.write_bytes(b"no CAR at all")
    ran = backfill("localnet", "--state", folder / "net", "--car", car)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert f"{car} is not the CAR file of a repo" in ran.err
    assert not (folder / "net" / "localnet.json").exists()


def test_a_missing_car_and_faults_file(folder: Path, backfill: Command) -> None:
    for option in ("--car", "--faults"):
        ran = backfill("localnet", "--state", folder / "net", option, folder / "none")
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert str(folder / "none") in ran.err


def test_a_report_to_an_unwritable_place(config: Path, folder: Path, backfill: Command) -> None:
    backfill("plan", config)
    (folder / "file").write_text("in the way")
    ran = backfill("report", config, "--out", folder / "file" / "below")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"backfill: can't write {folder}/file/below: Not a directory; name another folder with --out\n"


def test_validate_sees_what_two_files_share(folder: Path, source: Path, backfill: Command) -> None:
    one, two = folder / "one.yaml", folder / "two.yaml"
    for path in (one, two):
        block = {"name": "same", "source": {"type": "sqlite", "path": str(source)}, "record_types": ["app.bsky.*"]}
        path.write_text(json.dumps({"backfill": block}))
    ran = backfill("validate", one, two)
    assert ran.code == 2
    assert f"backfill.name is the same as in {two}" in ran.err
    assert f"backfill.state.path is the same as in {one}" in ran.err
    assert backfill("validate", one, one).code == 0


def test_validate_looks_at_every_file(folder: Path, source: Path, backfill: Command) -> None:
    good = write_config(folder, NOWHERE, [], source=SOURCE, name="good")
    bad = write_config(folder, NOWHERE, [], source=SOURCE | {"query": "SELECT x FROM dids"}, name="bad")
    later = write_config(folder, NOWHERE, [], source=SOURCE, processing={"decode_processes": 2}, name="later")
    broken = folder / "broken.yaml"
    broken.write_text(yaml.safe_dump({"backfill": {}}))
    ran = backfill("validate", broken, bad, later, good, "--source")
    assert ran.code == 2
    assert f"{bad}: source.query" in ran.err
    assert str(broken) in ran.err
    assert f"{later}: note: processing.decode_processes over 0 is not available" in ran.out
    assert f"{good}: source {source} (SELECT did FROM dids): no rows" in ran.out
    assert backfill("validate", good, later).code == 0
