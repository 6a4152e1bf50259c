"""Commands that look: before any plan they say so in a sentence, and looking never creates anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import Network


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("command", ["verify", "report", "retry"])
def test_before_any_plan_they_say_what_to_do(config: Path, folder: Path, backfill: Command, command: str) -> None:
    before = names(folder)
    ran = backfill(command, config)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (f"backfill: nothing is planned yet in {folder}/data/study: run `backfill plan {config}` first\n")
    assert names(folder) == before


def test_status_before_any_plan_is_an_answer(config: Path, folder: Path, backfill: Command) -> None:
    before = names(folder)
    said, as_json = backfill("status", config), backfill("status", config, "--json")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"no DIDs are planned: `backfill plan {config}` reads the source\n"
    assert as_json.json == {
        "dids": 0,
        "outcomes": {},
        "records": {},
        "left": 0,
        "lost_parts": 0,
        "shards": {},
        "records_path": f"{folder}/data/study/records",
    }
    assert names(folder) == before


@pytest.mark.parametrize("command", ["status", "verify", "report", "retry"])
def test_what_is_not_available_yet_is_refused(folder: Path, network: Network, backfill: Command, command: str) -> None:
    config = network.write_config(folder, processing={"decode_processes": 2})
    ran = backfill(command, config)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "backfill: processing.decode_processes over 0 is not available in this version; use 0\n"


def test_status_and_verify_change_nothing(config: Path, folder: Path, backfill: Command) -> None:
    assert backfill("run", config).code == 0

    def content() -> dict[str, bytes]:
        kept = (path for path in (folder / "data").rglob("*") if path.is_file() and "sqlite-" not in path.name)
        return {str(path): path.read_bytes() for path in kept}

    before = content()
    assert backfill("status", config).code == 0
    assert backfill("verify", config).out == "clean\n"
    assert content() == before


def test_verify_names_each_difference(config: Path, folder: Path, backfill: Command) -> None:
    backfill("run", config)
    part = next((folder / "data" / "study" / "records").rglob("*.parquet"))
    part.write_bytes(part.read_bytes() + b"x")
    ran = backfill("verify", config)
    assert ran.code == 1
    assert part.name in ran.err
    assert ran.out == f"{len(ran.err.splitlines())} problem{'s' * (len(ran.err.splitlines()) > 1)}\n"
