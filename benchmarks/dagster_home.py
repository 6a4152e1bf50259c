"""A `DAGSTER_HOME` and a folder of configs for the benchmarks with Dagster, all of it temporary."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from backfill_dagster.errors import BackfillError
from backfill_dagster.orchestration.graphql_documents import RUNS
from backfill_dagster.orchestration.live import STOP_SECONDS, LocalDagster
from backfill_dagster.orchestration.webserver import RUNS_MAX

PROJECT = Path(__file__).parents[1]
EXAMPLE = PROJECT / "configs" / "bluesky.yaml"
INSTANCE = PROJECT / "deploy" / "local" / "dagster.yaml"


@dataclass(frozen=True)
class Home:
    """The folders: `DAGSTER_HOME`, the configs, the network's, and everything's state."""

    folder: Path

    @property
    def dagster(self) -> Path:
        """`DAGSTER_HOME`, with the dagster.yaml of `make setup`."""
        return self.folder / "dagster_home"

    @property
    def configs(self) -> Path:
        """`BACKFILL_CONFIG_DIR`."""
        return self.folder / "configs"

    @property
    def network(self) -> Path:
        """Where a local network writes what it is."""
        return self.folder / "network"

    @property
    def environ(self) -> dict[str, str]:
        """Of every process that works here; telemetry and leases stay here too."""
        return {
            **os.environ,
            "DAGSTER_HOME": str(self.dagster),
            "BACKFILL_CONFIG_DIR": str(self.configs),
            "BACKFILL_LOCK_DIR": str(self.folder / "locks"),
        }

    def add_config(self, name: str, changes: Mapping[str, Any] | None = None) -> Path:
        """Write a config like the example, five record types and all, with a state of its own.

        Args:
            name: of the backfill.
            changes: block -> what is merged into it; a `source` is replaced.

        Returns:
            The file.
        """
        block: dict[str, Any] = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text())["backfill"])
        block |= {"name": name, "state": {"path": str(self.folder / "state" / name)}}
        for key, value in (changes or {}).items():
            block[key] = value if key == "source" else block[key] | value
        path = self.configs / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"backfill": block}))
        return path

    def live(self) -> LocalDagster:
        """Code server, webserver and daemon over this home, to be entered."""
        return _TemporaryDagster(self.dagster, config_dir=self.configs, environ=self.environ)


class _TemporaryDagster(LocalDagster):
    """Stops only the runs at work: the thousands in the queue go away with the home, one by one takes minutes."""

    def stop_runs(self) -> None:
        """Stop the runs at work."""
        at_work = {"statuses": ["STARTING", "STARTED"]}
        answer = self.webserver.query(RUNS, filter=at_work, limit=RUNS_MAX)["runsOrError"]
        run_ids = [run["runId"] for run in answer["results"]]
        try:
            self.webserver.terminate(run_ids)
            self.webserver.wait_for_runs(
                lambda: self.webserver.runs(run_ids=run_ids), count=len(run_ids), timeout_seconds=STOP_SECONDS
            )
        except BackfillError:
            # As in the base class: the servers are stopped with everything under them.
            return


@contextmanager
def temporary_home() -> Iterator[Home]:
    """A home without configs; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="backfill-bench-") as name:
        home = Home(Path(name))
        home.dagster.mkdir()
        home.configs.mkdir()
        shutil.copy(INSTANCE, home.dagster / "dagster.yaml")
        yield home
