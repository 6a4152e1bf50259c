"""A config that names another state: what begins anew, what goes on, and what is refused in one clear sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import Network

COMMANDS = ("plan", "run", "status", "report", "retry", "verify", "repair", "compact", "query")
WITH_SQL = {"query": ["SELECT 1"]}
DIDS = 24

OUTSIDE = {"type": "sqlite", "path": "ledger.sqlite"}


def tree(path: Path) -> dict[str, bytes]:
    """All files but those that SQLite keeps beside a database while somebody reads it, and sometimes longer."""
    files = [one for one in path.rglob("*") if one.is_file() and not one.name.endswith(("-wal", "-shm"))]
    return {str(one.relative_to(path)): one.read_bytes() for one in files}


def assert_refused(
    backfill: Command, config: Path, said: str, *, code: int = 1, commands: tuple[str, ...] = COMMANDS
) -> None:
    for command in commands:
        ran = backfill(command, config, *WITH_SQL.get(command, []))
        assert (command, ran.code, ran.out) == (command, code, "")
        assert said in ran.err
        assert ran.err.startswith("backfill: ")
        assert ran.err.count("\n") == 1


def assert_all_there(backfill: Command, network: Network, config: Path, *, requests: int) -> None:
    ran = backfill("run", config, "--json")
    assert (ran.code, ran.json["requests"], ran.json["left"]) == (0, requests, 0)
    assert (ran.json["outcomes"], ran.json["records"]) == (network.outcomes(), network.records())
    assert backfill("verify", config).out == "clean\n"


def test_another_path_is_another_state(folder: Path, network: Network, backfill: Command) -> None:
    assert_all_there(backfill, network, network.write_config(folder), requests=DIDS)
    before = tree(folder / "data" / "study")

    config = network.write_config(folder, state={"path": "data/other"})
    status = backfill("status", config)
    said = f"no DIDs are planned: `backfill plan {config}` reads the source\n"
    assert (status.code, status.out, status.err) == (0, said, "")
    nothing = f"nothing is planned yet in {folder}/data/other: run `backfill plan {config}` first"
    assert_refused(backfill, config, nothing, code=2, commands=("report", "retry", "verify", "repair", "compact"))
    assert not (folder / "data" / "other").exists()
    assert_all_there(backfill, network, config, requests=DIDS)
    assert tree(folder / "data" / "study") == before

    other = tree(folder / "data" / "other")
    assert_all_there(backfill, network, network.write_config(folder), requests=0)
    assert tree(folder / "data" / "other") == other


def test_another_name_is_another_state(folder: Path, network: Network, backfill: Command) -> None:
    """Without a state.path of its own, the name says where it is."""
    assert_all_there(backfill, network, network.write_config(folder), requests=DIDS)
    before = tree(folder / "data" / "study")
    assert_all_there(backfill, network, network.write_config(folder, name="renamed"), requests=DIDS)
    assert tree(folder / "data" / "study") == before


@pytest.mark.parametrize("storage", [{}, {"storage": OUTSIDE}], ids=["ledger inside", "ledger outside"])
def test_a_folder_that_was_moved_goes_on_where_it_was(
    folder: Path, network: Network, backfill: Command, storage: dict[str, Any]
) -> None:
    in_turn = {"concurrent_requests": 1, "quota": {"requests": 5}}
    config = network.write_config(folder, processing=in_turn, **storage)
    first = backfill("run", config, "--json")
    assert (first.code, first.json["requests"], first.json["left"]) == (3, 10, DIDS - 10)
    before = backfill("status", config, "--json").json
    (folder / "far").mkdir()
    (folder / "data" / "study").rename(folder / "far" / "away")

    config = network.write_config(folder, state={"path": "far/away"}, **storage)
    status = backfill("status", config, "--json").json
    assert status == before | {"records_path": f"{folder}/far/away/records"}
    assert backfill("verify", config).out == "clean\n"
    assert_all_there(backfill, network, config, requests=DIDS - 10)
    assert_all_there(backfill, network, config, requests=0)
    assert not (folder / "data" / "study").exists()


def test_partitions_know_no_paths(
    folder: Path, network: Network, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster import DagsterInstance

    home = folder / "dagster"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))

    def partitions() -> list[str]:
        with DagsterInstance.from_config(str(home)) as instance:
            return list(instance.get_dynamic_partitions("did_shards__study"))

    assert backfill("plan", network.write_config(folder)).code == 0
    keys = partitions()
    assert len(keys) == 2
    (folder / "data" / "study").rename(folder / "away")
    assert backfill("plan", network.write_config(folder, state={"path": "away"})).code == 0
    assert partitions() == keys
    assert backfill("plan", network.write_config(folder, state={"path": "data/anew"})).code == 0
    assert partitions() == keys


def test_a_ledger_that_stayed_behind_is_refused_until_either_is_moved(
    folder: Path, network: Network, backfill: Command
) -> None:
    assert_all_there(backfill, network, network.write_config(folder, storage=OUTSIDE), requests=DIDS)
    before = tree(folder / "data" / "study")
    config = network.write_config(folder, storage=OUTSIDE, state={"path": "data/other"})
    said = f"but {folder}/data/other/state.json is missing; bring the state folder back (if only that file is lost, "
    said += "`backfill repair` writes it again), or move the ledger away too to begin anew\n"
    assert_refused(backfill, config, said)
    assert not (folder / "data" / "other").exists()
    assert tree(folder / "data" / "study") == before

    ledger = list(folder.glob("ledger.sqlite*"))
    (folder / "kept").mkdir()
    for path in ledger:
        path.rename(folder / "kept" / path.name)
    assert_all_there(backfill, network, config, requests=DIDS)
    # The first state has lost its ledger to the second one.
    said = "ledger.sqlite belongs to the state "
    assert_refused(backfill, network.write_config(folder, storage=OUTSIDE), said)
    for path in folder.glob("ledger.sqlite*"):
        path.unlink()
    for path in ledger:
        (folder / "kept" / path.name).rename(path)
    assert_all_there(backfill, network, network.write_config(folder, storage=OUTSIDE), requests=0)
    assert tree(folder / "data" / "study") == before


def test_a_copy_that_was_left_behind_is_refused(folder: Path, network: Network, backfill: Command) -> None:
    """One ledger can't index two logs: the copy's would take numbers that the ledger has items of already."""
    in_turn = {"concurrent_requests": 1, "quota": {"requests": 5}}
    assert backfill("run", network.write_config(folder, processing=in_turn, storage=OUTSIDE)).code == 3
    shutil.copytree(folder / "data" / "study", folder / "data" / "copy")
    assert_all_there(backfill, network, network.write_config(folder, storage=OUTSIDE), requests=DIDS - 10)
    config = network.write_config(folder, storage=OUTSIDE, state={"path": "data/copy"})
    before = tree(folder / "data" / "copy")
    assert_refused(backfill, config, "the ledger knows entry 4 of its log, which ends at 2", commands=("run",))
    assert "the ledger has" in backfill("verify", config).err
    assert tree(folder / "data" / "copy") == before
    assert_all_there(backfill, network, network.write_config(folder, storage=OUTSIDE), requests=0)


def rename_over_the_same_path(folder: Path, network: Network) -> tuple[Path, Path]:
    state = {"path": "data/one"}
    return network.write_config(folder, state=state), network.write_config(folder, name="other", state=state)


def two_configs_and_one_ledger_too(folder: Path, network: Network) -> tuple[Path, Path]:
    both = {"state": {"path": "data/one"}, "storage": OUTSIDE}
    return network.write_config(folder, **both), network.write_config(folder, name="other", **both)


def the_default_path_of_the_other(folder: Path, network: Network) -> tuple[Path, Path]:
    return network.write_config(folder), network.write_config(folder, name="other", state={"path": "data/study"})


@pytest.mark.parametrize(
    "configs", [rename_over_the_same_path, two_configs_and_one_ledger_too, the_default_path_of_the_other]
)
def test_one_path_is_one_backfill(
    folder: Path, network: Network, backfill: Command, configs: Callable[[Path, Network], tuple[Path, Path]]
) -> None:
    first, second = configs(folder, network)
    assert backfill("plan", first).code == 0
    before = tree(folder / "data")
    said = "holds the state of the backfill 'study', not of 'other'; set another state.path, or the old name\n"
    assert_refused(backfill, second, said)
    assert tree(folder / "data") == before
    assert_all_there(backfill, network, first, requests=DIDS)


def test_one_name_and_one_ledger_are_one_backfill(folder: Path, network: Network, backfill: Command) -> None:
    """Two files of one name, each with a state of its own, want the same items of the same ledger."""
    (folder / "twin").mkdir()
    ledger = {"type": "sqlite", "path": str(folder / "ledger.sqlite")}
    first = network.write_config(folder, storage=ledger)
    second = network.write_config(folder / "twin", storage=ledger)
    assert backfill("plan", first).code == 0
    assert_refused(backfill, second, f"but {folder}/twin/data/study/state.json is missing")
    assert_all_there(backfill, network, first, requests=DIDS)
