"""No look of any sensor or schedule has failed in all that the scenes have been through."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from backfill_dagster_tests.live.living import LiveDagster

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


def test_no_tick_has_failed(live: LiveDagster, scenes: dict[str, Future[Any]]) -> None:
    for scene in scenes.values():
        scene.exception()
    said = (live.dagster.logs / "daemon.log").read_text()
    assert "Checking for new runs for sensor" in said, "the daemon speaks of its sensors"
    assert [line for line in said.splitlines() if "caught an error for" in line] == []
