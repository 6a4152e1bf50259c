"""What some tests need beyond PyPI. Without it they are skipped and say why; CI makes that a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def need(is_there: bool, reason: str) -> None:
    """Skip with the reason unless it is there; fail instead where BACKFILL_TESTS_MUST_NOT_SKIP is set."""
    if is_there:
        return
    if os.environ.get("BACKFILL_TESTS_MUST_NOT_SKIP"):
        pytest.fail(reason)
    pytest.skip(reason)


def need_folder(variable: str) -> Path:
    """The folder that an environment variable names."""
    value = os.environ.get(variable)
    need(bool(value), f"{variable} names no folder")
    assert value is not None
    folder = Path(value)
    need(folder.is_dir(), f"{variable} names {folder}, which is no folder")
    return folder
