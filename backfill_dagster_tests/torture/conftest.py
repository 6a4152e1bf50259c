"""The scenes, made once for a module."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backfill_dagster_tests.torture.scenes import Scene, made_scenes


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A folder in memory where there is one: these tests keep their own account of what is durable."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory if usable else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def scenes(ground: Path) -> Iterator[Mapping[str, Scene]]:
    with made_scenes(ground / "scenes") as made:
        yield made
