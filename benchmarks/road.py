"""`backfill run` as a whole: HTTP from a network in another process, to committed Parquet and ledger."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from backfill_dagster.config import load_config
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState, open_state
from backfill_dagster.worker.backfill import run_backfill, shards_with_work
from backfill_dagster.worker.planning import plan_backfill
from benchmarks.measure import Figure
from benchmarks.tiny_network import wait_for_description

REPOS = 100
ROUNDS = 2


def figures() -> Iterator[Figure]:
    """The last of two rounds: in the first the network still makes its repos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = subprocess.Popen(
            [sys.executable, "-m", "backfill_dagster.localnet", "--state", str(folder), "--repos", str(REPOS)],
            stdout=subprocess.DEVNULL,
        )
        try:
            said = wait_for_description(folder / "localnet.json")
            for number in range(ROUNDS):
                records, seconds = _round(folder / f"round{number}", said)
            yield Figure("backfill run, HTTP to committed Parquet", records, "records", seconds)
        finally:
            network.send_signal(signal.SIGTERM)
            network.wait(10)


def _round(folder: Path, said: Mapping[str, Any]) -> tuple[int, float]:
    folder.mkdir()
    block = {
        "name": "bench",
        "source": {"type": "sqlite", "path": said["dids_sqlite"]},
        "record_types": ["app.bsky.*"],
        "identity": {"plc_url": said["plc_url"], "requests_per_second": 1000, "handle_resolver": None},
        "processing": {"allow_private_hosts": True, "requests_per_second": 1000},
        "state": {"path": str(folder / "state")},
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump({"backfill": block}))
    with open_state(load_config(path), environ={"BACKFILL_LOCK_DIR": str(folder / "locks")}) as state:
        return asyncio.run(_run(state))


async def _run(state: BackfillState) -> tuple[int, float]:
    planned = await plan_backfill(state, run_id="bench")
    selection = load_selection(state.config)
    shards = shards_with_work(state, planned.plan, selection.scope)
    started = time.perf_counter()
    done = await run_backfill(state, planned.plan, selection, shards, run_id="bench")
    return sum(one.numbers.records_total for one in done.results.values()), time.perf_counter() - started
