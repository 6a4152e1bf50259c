"""House rules that no linter knows: what each folder has, how long files are, what must never be in one."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from backfill_dagster_tests.repository import ROOT, files, named

LINES_MAX = 400
README_LINES = range(5, 21)

PACKAGES = sorted({path.parent for path in files("*.py", under="backfill_dagster")} - {ROOT / "backfill_dagster"})
TEST_PACKAGES = sorted({path.parent for path in files("*.py", under="backfill_dagster_tests")})

OWN_FOLDERS = "|".join(("work", "root", "Users"))
MACHINE_PATH = re.compile(rf"(?<![\w.}}~*])/(?:{OWN_FOLDERS})(?![\w*-])")


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in files():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_what_stands_at_the_top() -> None:
    for name in ("backfill_dagster", "backfill_dagster_tests", "configs", "deploy", "docs", "benchmarks"):
        assert (ROOT / name).is_dir(), name
    for name in ("workspace.yaml", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", ".ci/run"):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("package", PACKAGES, ids=named)
def test_each_package_has_a_short_readme_and_a_docstring(package: Path) -> None:
    lines = (package / "README.md").read_text(encoding="utf-8").strip().splitlines()
    assert len(lines) in README_LINES, f"{len(lines)} lines"
    assert lines[0].startswith("# ")
    assert_docstring(package / "__init__.py")


@pytest.mark.parametrize("package", TEST_PACKAGES, ids=named)
def test_each_test_package_says_what_it_is_about(package: Path) -> None:
    assert_docstring(package / "__init__.py")


def assert_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{named(path)} has no docstring"


def test_tests_mirror_the_packages() -> None:
    tested = {path.name for path in TEST_PACKAGES}
    assert {package.name for package in PACKAGES if package.parent.name == "backfill_dagster"} <= tested


def test_no_file_is_too_long() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MAX} == {}


def test_no_path_of_a_machine_is_in_any_file() -> None:
    found = {named(path): match[0] for path, text in texts() if (match := MACHINE_PATH.search(text))}
    assert found == {}


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        (f"see /{'work'}/main", True),
        (f'"/{"root"}/x"', True),
        ("backfill_dagster/worker/shard.py", False),
        ("a/root/b", False),
        ("reply/root_uri", False),
    ],
)
def test_the_pattern_knows_a_path_of_a_machine(text: str, is_found: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is is_found


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(?:NotImplemented" + r"Error|TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    found = {named(path) for path in files("*.py") if later.search(path.read_text(encoding="utf-8"))}
    assert found == set()


def test_packages_are_pinned_by_hash_and_say_no_index() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(
        r"https?://|^\s*(?:-i\b|-f\b|--index-url|--extra-index-url|--find-links|--trusted-host)", text, re.M
    )
    pins = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert len(pins) > 50
    for pin in pins:
        assert re.match(r"[a-z0-9][a-z0-9._-]*(?:\[[a-z0-9,_-]+\])?==\S+", pin, re.I), pin.splitlines()[0]
        assert "--hash=sha256:" in pin, pin.splitlines()[0]


def test_what_is_wanted_with_extras_is_pinned_with_them() -> None:
    """Else pip looks for the newest release before it looks at the pin, and refuses it for want of a hash."""
    pinned = re.findall(r"(?m)^([a-z0-9._-]+)\[[a-z0-9,_-]+\]==", (ROOT / "constraints.txt").read_text())
    wanted = set()
    for distribution in importlib.metadata.distributions():
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.extras and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                wanted.add(requirement.name.lower())
    assert wanted == set(pinned)


def test_make_help_lists_every_target() -> None:
    declared = set(re.findall(r"(?m)^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text()))
    said = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {line.split()[0] for line in said.stdout.splitlines()} == declared
    assert {"setup", "demo", "ui", "test", "lint", "bench", "help"} <= declared
    assert all(len(line.split()) > 2 for line in said.stdout.splitlines())
