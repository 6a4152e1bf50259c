"""Zombies on S3 and DynamoDB: a writer stands still before a request, another takes over, the first one wakes up.

It stops by itself. What it may still do there: a part that nobody will name appears, and an item in the ledger is that
of an older entry. `verify` names both, and the next run mends them.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backfill_dagster.report import verify_backfill
from backfill_dagster_tests.torture import TORTURE
from backfill_dagster_tests.torture.cloud import CloudLife, cloud_config, load, objects_of, prefix_of
from backfill_dagster_tests.torture.life import CONFIG
from backfill_dagster_tests.torture.picture import finished_picture
from backfill_dagster_tests.torture.scenes import is_entry, made_scenes
from backfill_dagster_tests.torture.test_cloud import cloud  # noqa: F401 - a fixture
from backfill_dagster_tests.torture.test_zombies import (
    Window,
    assert_it_stopped,
    numbers_of,
    set_lease_seconds,
    take_over,
)
from backfill_dagster_tests.torture.zombie import SAID, go_on, stopped_run

pytestmark = [pytest.mark.live, pytest.mark.timeout(1800 if TORTURE else 300)]

AT_ONCE = 6
"""Most of the time each of them waits for leases to lapse."""
LEASE_SECONDS = 3
FIXED = re.compile(r"(?:log|plan|purges)/")
NAMED = re.compile(
    r"localhost_\d+~0000: the ledger has \S+ at seq \d+, the log at \d+; the next run mends it, .*"
    r"|(?:records|quarantine)/\S+: no log says that this part is live; the next run of its shard removes it, .*"
)

_picture_lock = threading.Lock()


@pytest.fixture(scope="module")
def windows(cloud: tuple[str, str], ground: Path) -> Iterator[Mapping[str, Window]]:  # noqa: F811
    """From the seal to the end of a first run, and from the lease to the first new entry of a recovery."""
    with made_scenes(ground / "zombies", CloudLife, lambda folder: cloud_config(folder, *cloud)) as scenes:
        first, broken = scenes["first_run"], scenes["recovery"]
        seal = numbers_of(first.calls, is_entry)[0]
        lease = numbers_of(broken.calls, lambda call: call.kind == "lease")[0]
        entry = numbers_of(broken.calls, is_entry)[1]
        yield {
            "commit": Window(first.base, first.calls, seal + 1, len(first.calls), first),
            "recovery": Window(broken.base, broken.calls, lease, entry, broken),
        }


@pytest.mark.parametrize("name", ["commit", "recovery"])
def test_a_writer_that_wakes_up_too_late_stops_by_itself(
    windows: Mapping[str, Window], ground: Path, name: str
) -> None:
    window = windows[name]
    numbers = window.numbers()
    assert len(numbers) >= 4
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda number: haunted(window, number, ground / f"cloud-{name}-{number}"), numbers)
        wrong = [
            f"{number} {window.calls[number - 1]}: {why}" for number, why in zip(numbers, found, strict=True) if why
        ]
    assert not wrong, "\n".join(wrong)


def haunted(window: Window, number: int, folder: Path) -> str:
    """What went wrong with a zombie at this request; nothing, if all is well."""
    try:
        haunt(window, number, folder)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    return ""


def haunt(window: Window, number: int, folder: Path) -> None:
    CloudLife.begin(window.base, folder)
    set_lease_seconds(folder / CONFIG, LEASE_SECONDS)
    environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with stopped_run(folder, number, CloudLife, environ) as zombie:
        take_over(folder, CloudLife)
        before = content(folder)
        code = go_on(zombie, folder)
    after = content(folder)
    assert not before.items() - after.items(), "the zombie has changed or deleted what was there"
    assert not [key for key in after.keys() - before.keys() if FIXED.match(key)], "the zombie has committed something"
    assert_it_stopped(code, (folder / SAID).read_text(), window.calls[number - 1], number > window.last_entry)
    again = CloudLife(folder, CloudLife.fate_of())
    with again.opened() as state, _picture_lock:
        strange = [line for line in verify_backfill(state) if not NAMED.fullmatch(line)]
        assert not strange, strange
    take_over(folder, CloudLife)
    with again.opened() as state, _picture_lock:
        other = finished_picture(state).differences(window.scene.end)
    assert not other, other


def content(folder: Path) -> dict[str, str]:
    """Key -> ETag of everything that counts."""
    config = load(folder)
    root = f"{prefix_of(config)}/"
    found = {key.removeprefix(root): etag for key, etag in objects_of(config)}
    return {key: etag for key, etag in found.items() if not key.startswith(("probe/", "reports/"))}
