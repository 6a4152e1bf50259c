"""Where tests find data that isn't part of the repository, and the skip with its reason when they don't."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


def folder_of(variable: str) -> Path:
    """The folder that an environment variable names; skips the test when it is unset."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} names no folder")
    return Path(value)


def interop_lines(name: str, folder: str = "syntax") -> list[str]:
    """The vectors of one text file, without comments and empty lines."""
    text = (folder_of("BACKFILL_INTEROP_VECTORS") / folder / name).read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    assert lines
    return lines


def interop_json(name: str) -> Any:
    """One JSON file of the vectors."""
    return json.loads((folder_of("BACKFILL_INTEROP_VECTORS") / name).read_text(encoding="utf-8"))


def real_car(name: str) -> bytes:
    """One real CAR."""
    return (folder_of("BACKFILL_REAL_CARS") / name).read_bytes()
