"""No look of any sensor or schedule has failed in all that the scenes have been through."""

from __future__ import annotations

import re
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
    failed = [entry for entry in re.split(r"\n(?=\S*\d{4}-\d\d-\d\d )", said) if "caught an error for" in entry]
    # A file that is taken away takes its sensors along, and the daemon may have been about to ask one of them.
    assert [entry for entry in failed if "Could not find sensor 'new_shards_wrong'" not in entry] == []
