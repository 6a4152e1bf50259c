"""A state folder that can't be used: one line with the remedy, exit 1, and what was there stays as it is."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import BACKFILL, Network

SMALL_FILES_BYTES = 12 * 1024


def one_line(text: str) -> str:
    assert text.startswith("backfill: ")
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize("block", ["state", "storage"])
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_file_in_the_way(folder: Path, network: Network, backfill: Command, block: str, command: str) -> None:
    (folder / "file").write_text("in the way")
    changes = {"state": {"path": "file/below"}, "storage": {"type": "sqlite", "path": "file/ledger.sqlite"}}
    ran = backfill(command, network.write_config(folder, **{block: changes[block]}))
    assert (ran.code, ran.out) == (1, "")
    assert str(folder / "file") in one_line(ran.err)
    assert (folder / "file").read_text() == "in the way"


def test_locks_that_can_t_be_kept(
    config: Path, folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("BACKFILL_LOCK_DIR", str(folder / "file" / "locks"))
    ran = backfill("run", config)
    assert (ran.code, ran.out) == (1, "")
    assert f"{folder}/file/locks" in one_line(ran.err)


def test_the_state_of_another_backfill(folder: Path, network: Network, backfill: Command) -> None:
    assert backfill("plan", network.write_config(folder, state={"path": "data/one"})).code == 0
    other = network.write_config(folder, name="other", state={"path": "data/one"})
    for command in ("plan", "run", "status", "verify", "report", "retry"):
        ran = backfill(command, other)
        assert (ran.code, ran.out) == (1, "")
        assert "holds the state of the backfill 'study', not of 'other'" in one_line(ran.err)


def test_a_ledger_over_a_missing_state(folder: Path, network: Network, backfill: Command) -> None:
    config = network.write_config(folder, storage={"type": "sqlite", "path": "ledger.sqlite"})
    assert backfill("run", config).code == 0
    (folder / "data").rename(folder / "away")
    for command in ("plan", "run", "status", "verify", "report", "retry"):
        ran = backfill(command, config)
        assert (ran.code, ran.out) == (1, "")
        assert "bring the state folder back" in one_line(ran.err)
        assert not (folder / "data" / "study" / "state.json").exists()
    shutil.rmtree(folder / "data", ignore_errors=True)
    (folder / "away").rename(folder / "data")
    assert backfill("status", config).code == 0
    assert backfill("verify", config).out == "clean\n"


def test_a_ledger_that_is_gone_is_written_again(config: Path, folder: Path, backfill: Command) -> None:
    assert backfill("run", config).code == 0
    for path in (folder / "data" / "study").glob("ledger.sqlite*"):
        path.unlink()
    before = backfill("verify", config)
    assert before.code == 1
    assert "the next run mends it" in before.err
    assert not (folder / "data" / "study" / "ledger.sqlite").exists()


def test_files_that_may_not_grow(folder: Path, network: Network, backfill: Command) -> None:
    """EFBIG from the kernel: the same road as a full disk, without needing to mount one."""
    config = network.write_config(folder, storage={"type": "sqlite", "path": "ledger.sqlite"})
    assert backfill("plan", config).code == 0

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES_BYTES, SMALL_FILES_BYTES))

    ran = subprocess.run([*BACKFILL, "run", config], capture_output=True, text=True, preexec_fn=small_files)
    assert (ran.returncode, ran.stdout) == (1, "")
    one_line(ran.stderr)
    again = backfill("run", config, "--json")
    assert (again.code, again.json["outcomes"], again.json["records"]) == (0, network.outcomes(), network.records())
    assert backfill("verify", config).out == "clean\n"


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 448 KiB."""
    path = folder / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=448k", "tmpfs", path]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        # Not `need`: whether a machine lets us mount is no package that CI could install.
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_is_said_and_the_next_run_goes_on(
    small_disk: Path, folder: Path, network: Network, backfill: Command
) -> None:
    config = network.write_config(folder, state={"path": "disk/state"})
    ran = backfill("run", config)
    assert (ran.code, ran.out) == (1, "")
    assert "free space on that disk and start again" in one_line(ran.err)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = backfill("run", config, "--json")
    assert (again.code, again.json["outcomes"], again.json["records"]) == (0, network.outcomes(), network.records())
    assert backfill("verify", config).out == "clean\n"
