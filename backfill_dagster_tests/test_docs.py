"""The documents are true: commands run, options are mentioned, links lead somewhere, stories name what is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import click
import duckdb
import pytest

from backfill_dagster.cli.main import cli
from backfill_dagster_tests.cli.network import Network, network_process
from backfill_dagster_tests.repository import ROOT, files, named

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [path for path in files("*.md") if "fixtures" not in path.parts]

STORIES = [f"{epic}.{number}" for epic, count in enumerate((5, 5, 5, 5, 4), 1) for number in range(1, count + 1)]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def commands() -> list[str]:
    """The README's shell commands, without their comments."""
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    return [command for line in lines if (command := re.sub(r"\s+#.*", "", line).strip())]


def commands_of(program: str) -> list[str]:
    return [command for command in commands() if command.startswith(program)]


def test_every_command_of_the_readme_is_of_a_kind_that_is_tested() -> None:
    known = ("make ", ".venv/bin/backfill ", ".venv/bin/dagster ", 'export DAGSTER_HOME="$PWD/.dagster"')
    assert [command for command in commands() if not command.startswith(known)] == []


def test_the_make_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named_targets = {command.split()[1] for command in commands_of("make ")}
    for path in DOCUMENTS:
        named_targets |= set(re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")))
    assert named_targets <= targets
    assert {"demo", "setup", "test"} <= named_targets


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("net")
    with network_process(folder, hosts=2, repos=12, seed=8, median_records=10) as made:
        yield made


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a newcomer has after `make setup`, as far as the commands need it."""
    for name in ("workspace.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    # Not the whole folder: who has followed the README already has a my_study.yaml in it.
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "bluesky.yaml", tmp_path / "configs")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / ".dagster").mkdir()
    shutil.copy(ROOT / "deploy" / "local" / "dagster.yaml", tmp_path / ".dagster")
    return tmp_path


def shell(command: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, env=os.environ | environ, timeout=100
    )


def write_study(clone: Path, network: Network) -> None:
    """What the README says to do with the starter: name the source and the collections."""
    network.write_config(clone, name="my_study").rename(clone / "configs" / "my_study.yaml")


def test_the_commands_of_the_readme_run(clone: Path, network: Network) -> None:
    first, *later = commands_of(".venv/bin/backfill ")
    written = shell(first, clone)
    assert (written.returncode, written.stderr) == (0, "")
    assert (clone / "configs" / "my_study.yaml").is_file()
    write_study(clone, network)
    done = set()
    for command in later:
        ran = shell(command, clone)
        assert (ran.returncode, ran.stderr) in ((0, ""), (3, "")), (command, ran)
        done.add(command.split()[1])
    assert done == {"validate", "run", "plan", "status", "report", "retry", "verify"}
    [query] = blocks(README, "sql")
    found = duckdb.sql(query.replace("data/my_study", str(clone / "data" / "my_study"))).fetchall()
    assert found
    assert all(count > 0 for _, _, count in found)


def graphql(url: str, query: str) -> Any:
    request = Request(f"{url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["data"]


def is_up(url: str) -> bool:
    try:
        return bool(graphql(url, "{ version }")["version"])
    except (URLError, OSError):
        return False


def runs(url: str) -> list[tuple[str, str]]:
    """(job, status) of every run."""
    found = graphql(url, "{ runsOrError { ... on Runs { results { jobName status } } } }")
    return [(run["jobName"], run["status"]) for run in found["runsOrError"]["results"]]


def wait_for(is_so: Any, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.live
@pytest.mark.timeout(400)
def test_the_dagster_commands_of_the_readme_work(clone: Path, network: Network) -> None:
    dev, launch, backfill = commands_of(".venv/bin/dagster ")
    assert dev == ".venv/bin/dagster dev"
    write_study(clone, network)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, home = f"http://127.0.0.1:{port}", str(clone / ".dagster")
    with (clone / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [*dev.split(), "-p", str(port)],
            cwd=clone,
            env=os.environ | {"DAGSTER_HOME": home},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
        )
    try:
        # Two of Dagster's commands that meet an empty DAGSTER_HOME at once both try to create its tables.
        wait_for(lambda: is_up(url))
        launched = shell(launch, clone, DAGSTER_HOME=home)
        assert launched.returncode == 0, launched
        wait_for(lambda: runs(url) == [("plan_my_study", "SUCCESS")])
        assert shell(backfill, clone, DAGSTER_HOME=home).returncode == 0
        wait_for(lambda: runs(url).count(("backfill_my_study", "SUCCESS")) == 2)
    finally:
        # As a Ctrl-C in the terminal does: to all of them.
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    status = shell(".venv/bin/backfill status configs/my_study.yaml --json", clone)
    assert json.loads(status.stdout)["outcomes"]["complete"] > 0


def documented(name: str) -> str:
    """What README and operations.md say on the lines that name a command."""
    texts = (README, (ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))
    lines = [line for text in texts for line in text.splitlines() if f"backfill {name}" in line]
    return "\n".join(lines)


def all_commands() -> dict[str, click.Command]:
    """Every command by what is typed after `backfill`, those of groups too."""
    found: dict[str, click.Command] = {}
    for name, command in cli.commands.items():
        below = command.commands if isinstance(command, click.Group) else {}
        found |= {f"{name} {sub}": one for sub, one in below.items()} or {name: command}
    return found


COMMANDS = all_commands()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_is_documented(name: str) -> None:
    said = documented(name)
    assert f"`backfill {name}" in said
    options = [option for parameter in COMMANDS[name].params for option in parameter.opts]
    missing = [option for option in options if option.startswith("--") and f"{option}" not in said]
    assert missing == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_that_is_documented_exists(name: str) -> None:
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help", "--debug"}
    table = next(
        line
        for line in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `backfill {name}")
    )
    assert set(re.findall(r"--[a-z-]+", table)) <= known


@pytest.mark.parametrize("name", sorted(cli.commands.keys() | COMMANDS))
def test_every_command_has_help(name: str) -> None:
    command = (cli.commands | COMMANDS)[name]
    assert command.help
    assert len(command.get_short_help_str(70)) < 65
    assert not command.get_short_help_str(70).endswith("...")
    assert [p.opts for p in command.params if isinstance(p, click.Option) and not p.help] == []


def anchors(text: str) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?s)```.*?```", "", text)):
        if re.match(r"https?://|mailto:", target):
            continue
        place, _, anchor = target.partition("#")
        there = (path.parent / place).resolve() if place else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


def story_rows() -> dict[str, tuple[str, str]]:
    text = (ROOT / "docs" / "stories.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| \*\*(\d\.\d)\*\* .*? \| (.*?) \| (.*?) \|$", text)
    assert len(rows) == len({story for story, _, _ in rows})
    return {story: (where, shown) for story, where, shown in rows}


def test_each_story_has_its_row() -> None:
    assert list(story_rows()) == STORIES


@pytest.mark.parametrize("story", STORIES)
def test_what_a_story_names_is_there(story: str) -> None:
    where, shown = story_rows()[story]
    for place in re.findall(r"`([^`]+)`", where):
        assert (ROOT / place).exists(), place
    assert shown == "not yet" or "`" in shown
    for test in re.findall(r"`([^`]+::[^`]+)`", shown):
        place, _, function = test.partition("::")
        assert re.search(rf"(?m)^\s*(?:async )?def {function}\(", (ROOT / place).read_text(encoding="utf-8")), test


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n")
    versions = re.findall(r"(?m)^## (.*)$", text)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", version) for version in versions[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"(?m)^### (.*)$", text)) <= kinds


def test_decisions_are_numbered_and_short() -> None:
    decisions = files("*.md", under="docs/decisions")
    assert [path.name[:4] for path in decisions] == [f"{number:04d}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {path.name[:4]} ")
        assert len(lines) <= 40, named(path)
