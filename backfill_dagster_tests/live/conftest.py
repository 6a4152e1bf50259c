"""One Dagster for the session, and the scenes that live in it side by side."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.orchestration.live import LocalDagster
from backfill_dagster_tests.live.living import LiveDagster

LOCAL_YAML = Path(__file__).parents[2] / "deploy" / "local" / "dagster.yaml"

Scene = Callable[[LiveDagster], Any]


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDagster]:
    """Code server, webserver and daemon."""
    home, configs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("project")
    shutil.copy(LOCAL_YAML, home / "dagster.yaml")
    environ = {**os.environ, "BACKFILL_LOCK_DIR": str(tmp_path_factory.mktemp("locks"))}
    with LocalDagster(home, config_dir=configs, environ=environ) as dagster:
        yield LiveDagster(dagster, configs)


@pytest.fixture(scope="session")
def scenes(live: LiveDagster, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
    """Module -> its scene, under way: those of all modules that have tests in this session."""
    modules = {item.module.__name__: item.module for item in request.session.items if isinstance(item, pytest.Function)}
    wanted: dict[str, Scene] = {
        name: module.scene for name, module in modules.items() if ".live." in name and hasattr(module, "scene")
    }
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        yield {name: pool.submit(scene, live) for name, scene in wanted.items()}


@pytest.fixture(scope="module")
def came(scenes: dict[str, Future[Any]], request: pytest.FixtureRequest) -> Any:
    """What came of this module's scene."""
    return scenes[request.module.__name__].result()
