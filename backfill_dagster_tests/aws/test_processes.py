"""Two processes with one backfill on S3 and DynamoDB, as two machines would have it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from backfill_dagster_tests.aws.conftest import RECORD_TYPES, rows_of
from backfill_dagster_tests.aws.place import Place
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import BACKFILL, wait_until
from backfill_dagster_tests.orchestration.network import ThreadedNetwork
from backfill_dagster_tests.road import write_config

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("aws_environ", "no_backoff")]

SLOW = {"requests_per_second": 1.5, "concurrent_requests": 1, "batch_size": 1, "lease_seconds": 3}


def started(config: Path, locks: Path) -> subprocess.Popen[str]:
    """`backfill run` with locks of its own, as on a machine of its own."""
    return subprocess.Popen(
        [*BACKFILL, "run", str(config), "--json"],
        env=os.environ | {"BACKFILL_LOCK_DIR": str(locks)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_works_and_the_other_names_who_does(
    folder: Path, network: ThreadedNetwork, place: Place, backfill: Command
) -> None:
    place.put_list(network.network.dids)
    config = write_config(
        folder,
        network.network.plc_url,
        [],
        record_types=RECORD_TYPES,
        processing=SLOW,
        **place.blocks(create_table=True),
    )
    assert backfill("plan", config).code == 0
    first = started(config, folder / "one")
    try:
        wait_until(lambda: len(held(config, backfill)) == 4)
        ran = backfill("run", config, "--json")
        holders = held(config, backfill)
        out, err = first.communicate(timeout=60)
    finally:
        first.kill()
        first.wait()
    assert (first.returncode, err) == (0, ""), out
    assert (ran.code, ran.err) == (3, "")
    assert len(ran.json["held"]) == 2
    for why in ran.json["held"].values():
        assert f"pid {first.pid}" in why, f"{why} against {holders}"
    assert (ran.json["requests"], ran.json["left"] > 0) == (0, True)
    done = backfill("run", config, "--json")
    assert (done.code, done.json["records"]) == (0, rows_of(network.network))
    assert backfill("verify", config).out == "clean\n"
    assert held(config, backfill) == []


def held(config: Path, backfill: Command) -> list[str]:
    """Who holds shards and hosts of it, by its table: this process has locks of its own."""
    ran = backfill("ledger", "leases", config, "--json")
    return [one["owner_text"] if "owner_text" in one else str(one) for one in ran.json["leases"]]


def test_both_at_once(folder: Path, network: ThreadedNetwork, place: Place, backfill: Command) -> None:
    """From the very beginning: one creates the table, one begins the state, and no row is there twice."""
    place.put_list(network.network.dids)
    config = write_config(
        folder,
        network.network.plc_url,
        [],
        record_types=RECORD_TYPES,
        processing={"batch_size": 2, "lease_seconds": 3},
        **place.blocks(create_table=True),
    )
    both = [started(config, folder / name) for name in ("one", "two")]
    ended = [(one.communicate(timeout=60), one.returncode) for one in both]
    assert {code for _, code in ended} <= {0, 1, 3}, ended
    assert 0 in {code for _, code in ended} or 3 in {code for _, code in ended}, ended
    assert all("Traceback" not in err and err.count("\n") <= 1 for (_, err), _ in ended), ended
    done = backfill("run", config, "--json")
    assert (done.code, done.json["records"]) == (0, rows_of(network.network))
    assert backfill("verify", config).out == "clean\n"
