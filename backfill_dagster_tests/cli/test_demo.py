"""`backfill demo`: its folder, its port, and the whole of it with real Dagster processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from backfill_dagster.cli.demo_folder import MARKER, claimed_folder
from backfill_dagster.cli.demo_network import demo_network
from backfill_dagster.errors import BackfillError, UsageError
from backfill_dagster_tests.aws.servers import installed
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import BACKFILL, wait_until
from backfill_dagster_tests.requirements import need

SMALL = ["--hosts", "2", "--repos", "16"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that have to do with a demo's folder, by arguments or environment."""
    need(Path("/proc/self/environ").exists(), "other processes' environment can only be read in /proc")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments, environ = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(folder).encode() in arguments + environ and int(process.name) != os.getpid():
            found.append(arguments.replace(b"\0", b" ").decode())
    return found


def test_a_folder_is_made_and_made_afresh(folder: Path) -> None:
    demo = folder / "deep" / "demo"
    with claimed_folder(demo) as claimed:
        assert claimed == demo
        assert (demo / "dagster" / "dagster.yaml").read_text().startswith("# The local Dagster instance.")
        (demo / "left").mkdir()
        (demo / "left" / "file").touch()
        (demo / "link").symlink_to(folder)
    with claimed_folder(demo):
        assert {path.name for path in demo.iterdir()} == {MARKER, "dagster"}
    assert (folder / "workspace.yaml").exists()


def test_a_folder_that_no_demo_made_is_left_alone(folder: Path, backfill: Command) -> None:
    ran = backfill("demo", "--folder", folder)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"backfill: {folder} is not empty and no demo made it: name another with --folder\n"
    assert [path.name for path in folder.iterdir()] == ["workspace.yaml"]


def test_two_demos_in_one_folder_are_one_too_many(folder: Path) -> None:
    with claimed_folder(folder / "demo"):
        (folder / "demo" / "busy").touch()
        with pytest.raises(UsageError, match="another demo runs in"), claimed_folder(folder / "demo"):
            pytest.fail("claimed twice")
        assert (folder / "demo" / "busy").exists()


def test_a_place_that_can_t_be_written(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(BackfillError, match="name another with --folder"), claimed_folder(folder / "file" / "demo"):
        pytest.fail("claimed")


def test_without_a_clone_there_is_no_demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backfill_dagster.cli.demo_folder.DAGSTER_YAML", folder / "none.yaml")
    with pytest.raises(UsageError, match="a clone of the repository"), claimed_folder(folder / "demo"):
        pytest.fail("claimed")


def test_a_network_that_does_not_start_names_its_log(folder: Path) -> None:
    with (
        pytest.raises(BackfillError, match=r"localnet\.log says why"),
        demo_network(folder, hosts=0, repos=1, seed=1),
    ):
        pytest.fail("started")
    assert "hosts is 0" in (folder / "localnet.log").read_text()
    assert processes_of(folder) == []


def test_a_port_that_is_taken_is_said_before_anything_starts(folder: Path, backfill: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = backfill("demo", "--ui", "--ui-port", port, "--folder", folder / "demo")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"backfill: port {port} is taken: stop what listens there, or `backfill demo --ui --ui-port 0` takes any\n"
    )
    assert not (folder / "demo").exists()


@pytest.mark.live
@pytest.mark.timeout(300)
def test_the_whole_demo(folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ran = backfill("demo", *SMALL)
    assert (ran.code, ran.err.splitlines()) == (0, ["starting 2 PDS hosts with 16 repos, and Dagster …"])
    assert "Outcomes" in ran.out
    assert "throughput from the first fetch to the last commit" in ran.out
    assert "Parquet: .demo/data/records\n" in ran.out
    assert "report:  .demo/data/reports/coverage.html\n" in ran.out
    assert ran.out.count("\n-- ") == 3
    assert "FROM read_parquet('.demo/data/records/record_type=like/*.parquet')\n" in ran.out
    assert (folder / ".demo" / "data" / "reports" / "coverage.html").is_file()
    assert processes_of(folder) == []
    config = folder / ".demo" / "configs" / "demo.yaml"
    status = backfill("status", config, "--json")
    assert (status.code, status.json["dids"], status.json["left"]) == (0, 16, 0)
    assert backfill("verify", config).out == "clean\n"

    installed(".venv/bin/moto_server")
    installed(".venv/bin/ministack")
    aws = backfill("demo", *SMALL, "--folder", folder / "aws", "--aws")
    assert (aws.code, aws.err) == (0, ran.err)
    assert "Parquet: s3://backfill-demo/demo/records\n" in aws.out
    assert summary_of(aws.out) == summary_of(ran.out)
    assert processes_of(folder) == []
    assert not [name for name in os.environ if name.startswith("AWS_ENDPOINT_URL")]
    # The same DIDs are on other ports in the next demo: nothing of this one may be where that one looks.
    assert (folder / "aws" / "locks" / "demo.identity.sqlite").is_file()
    assert not list(Path(os.environ["BACKFILL_LOCK_DIR"]).glob("*.identity.sqlite"))


OF_THE_WAY = re.compile(r"everything took|throughput|read_parquet|: +\S+/")
"""In lines about times and places."""


def summary_of(out: str) -> str:
    """What a demo's last words say of the data."""
    return "\n".join(line for line in out.splitlines() if not OF_THE_WAY.search(line))


@pytest.mark.live
@pytest.mark.timeout(300)
def test_the_ui_until_ctrl_c(folder: Path, backfill: Command) -> None:
    port, names = free_port(), []

    def look_and_stop() -> None:
        question = json.dumps({"query": "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }"})
        request = Request(f"http://127.0.0.1:{port}/graphql", question.encode(), {"Content-Type": "application/json"})
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urlopen(request, timeout=30) as answer:
                    entries = json.loads(answer.read())["data"]["workspaceOrError"]["locationEntries"]
            except (URLError, OSError, KeyError):
                time.sleep(0.2)
                continue
            names.extend(entry["name"] for entry in entries)
            time.sleep(4)  # not at once: the command itself waits until the jobs are loaded
            break
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=look_and_stop)
    thread.start()
    ran = backfill("demo", *SMALL, "--ui", "--ui-port", port, "--folder", folder / "demo")
    thread.join()
    assert names == ["backfill_dagster"]
    assert ran.code == 0
    assert ran.out.startswith(f"Dagster UI: http://127.0.0.1:{port} — ")
    assert processes_of(folder) == []


@pytest.mark.live
@pytest.mark.timeout(300)
def test_stopped_in_the_middle_it_leaves_no_process(folder: Path) -> None:
    """The terminal goes away while shards run; a Ctrl-C on top must not disturb the tidying up."""
    demo = folder / "demo"
    process = subprocess.Popen(
        [*BACKFILL, "demo", *SMALL, "--folder", demo], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: list(demo.glob("data/log/localhost*")) or process.poll() is not None, seconds=150)
    assert len(processes_of(folder)) > 4
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "backfill: the demo was stopped; it starts anew next time"
    assert processes_of(folder) == []
