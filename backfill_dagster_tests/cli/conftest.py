"""One network for a test module, and the command in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.cli.main import run_command
from backfill_dagster_tests.cli.network import Network, network_process


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ran]


@pytest.fixture
def backfill(capsys: pytest.CaptureFixture[str]) -> Command:
    """The `backfill` command, run in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network_process(tmp_path_factory.mktemp("net"), hosts=2, repos=24, seed=5, median_records=10) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "network" in request.fixturenames:
        request.getfixturevalue("network").set_faults()


@pytest.fixture
def config(folder: Path, network: Network) -> Path:
    """A config for all of the network."""
    return network.write_config(folder)
