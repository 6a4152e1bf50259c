"""Two processes with one backfill on S3 and DynamoDB, as two machines would have it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_dagster.localnet import Fault
from backfill_dagster_tests.aws.conftest import RECORD_TYPES, rows_of
from backfill_dagster_tests.aws.place import Place
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import BACKFILL, wait_until
from backfill_dagster_tests.orchestration.network import ThreadedNetwork
from backfill_dagster_tests.road import write_config

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("aws_environ", "no_backoff")]


def started(config: Path, locks: Path) -> subprocess.Popen[str]:
    """`backfill run` with locks of its own, as on a machine of its own."""
    return subprocess.Popen(
        [*BACKFILL, "run", str(config), "--json"],
        env=os.environ | {"BACKFILL_LOCK_DIR": str(locks)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def config(folder: Path, network: ThreadedNetwork, place: Place) -> Iterator[Path]:
    """All of the network, in a place of its own."""
    place.put_list(network.network.dids)
    processing = {"batch_size": 1, "lease_seconds": 3}
    blocks = place.blocks(create_table=True)
    yield write_config(folder, network.network.plc_url, [], record_types=RECORD_TYPES, processing=processing, **blocks)
    network.do(network.network.set_faults([]))


def test_one_works_and_the_other_names_who_does(
    folder: Path, network: ThreadedNetwork, config: Path, backfill: Command
) -> None:
    """The one is killed at last, and the other goes on where it stood."""
    stalled = [next(did for did in host.dids if did in network.network.active) for host in network.network.hosts]
    network.do(network.network.set_faults([Fault(kind="stall", did=did) for did in stalled]))
    first = started(config, folder / "one")
    try:
        wait_until(lambda: backfill("status", config, "--json").json.get("left") == len(stalled))
        assert len(held(config, backfill)) == 4, "two shards and two hosts"
        ran = backfill("run", config, "--json")
        assert (ran.code, ran.err) == (3, "")
        assert (ran.json["requests"], ran.json["left"], len(ran.json["held"])) == (0, 2, 2)
        assert [why for why in ran.json["held"].values() if f"pid {first.pid} on " not in why] == []
    finally:
        first.kill()
        first.communicate(timeout=30)
    network.do(network.network.set_faults([]))
    done = backfill("run", config, "--json")
    assert (done.code, done.json["records"]) == (0, rows_of(network.network))
    assert backfill("verify", config).out == "clean\n"
    assert held(config, backfill) == []


def held(config: Path, backfill: Command) -> list[str]:
    """Who holds shards and hosts of it, by its table: this process has locks of its own."""
    ran = backfill("ledger", "leases", config, "--json")
    return [f"{one['of']} {one['name']}" for one in ran.json["leases"]]


def test_both_at_once(folder: Path, network: ThreadedNetwork, config: Path, backfill: Command) -> None:
    """From the very beginning: one creates the table, one begins the state, and no row is there twice."""
    both = [started(config, folder / name) for name in ("one", "two")]
    ended = [(one.communicate(timeout=60), one.returncode) for one in both]
    assert {code for _, code in ended} <= {0, 3}, ended
    assert [err for (_, err), _ in ended] == ["", ""]
    fetched = sum(json.loads(out)["records_fetched"] for (out, _), _ in ended)
    assert fetched == sum(rows_of(network.network).values()), "nobody is fetched twice"
    done = backfill("run", config, "--json")
    assert (done.code, done.json["records"]) == (0, rows_of(network.network))
    assert backfill("verify", config).out == "clean\n"
