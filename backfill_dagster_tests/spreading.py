"""How the tests are spread over several workers: what belongs together, and who goes first (hooks of `conftest.py`)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

LIVE = "backfill_dagster_tests/live/"

SERVERS = {"moto", "ministack", "dynalite"}
"""Fixtures that start a server."""

MANY_TESTS = 20


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, but everything in live/ goes to one worker (it shares one Dagster), and in our own order."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: put the files into the order of `rank`."""
    if hasattr(config, "workerinput"):
        counts = Counter(unit_of(item.nodeid) for item in items)
        slow = {unit_of(item.nodeid) for item in items if is_slow(item)}
        items.sort(key=lambda item: rank(unit_of(item.nodeid), counts, slow))


def unit_of(nodeid: str) -> str:
    """What one worker gets as a whole."""
    return LIVE if nodeid.startswith(LIVE) else nodeid.partition("::")[0]


def is_slow(item: pytest.Item) -> bool:
    """Whether real servers or processes are at work: such a test takes seconds to minutes, others a blink."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    return item.get_closest_marker("live") is not None or not SERVERS.isdisjoint(fixtures)


def rank(unit: str, counts: Counter[str], slow: set[str]) -> tuple[int, int, str]:
    """Where in the queue a file is: live/, files of many quick tests, slow files, files of few quick tests.

    xdist alone would go by the number of tests: slow files have few, come last, and one worker waits for the other's.
    Nor do they come first: the tests of live/ look at the clock, and need the room that quick tests leave them.
    """
    if unit == LIVE:
        place = 0
    elif unit in slow:
        place = 2
    else:
        place = 1 if counts[unit] >= MANY_TESTS else 3
    return place, -counts[unit], unit
