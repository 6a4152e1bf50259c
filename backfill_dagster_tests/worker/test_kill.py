"""`kill -9` at random moments, then one run to the end: the same rows as an unbroken run, nothing twice."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest

from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster.report import verify_backfill
from backfill_dagster_tests.road import expected_rows, opened, rows_by_author, run_all, write_config

KILLS = int(os.environ.get("BACKFILL_TEST_KILLS", "20"))
RUN = "import sys; from backfill_dagster.cli.main import main; main(['run', sys.argv[1], '--json'])"
TINY_STEPS = {"batch_size": 2, "requests_per_second": 12, "concurrent_requests": 2, "shard_size": 30}


@pytest.mark.live
@pytest.mark.timeout(300)
async def test_killed_again_and_again(folder: Path) -> None:
    dice = random.Random(2026)
    options = LocalnetOptions(hosts=2, repos=KILLS * 6, seed=11, median_records=25, max_records=200, states={})
    async with LocalNetwork(options) as network:
        config = write_config(folder, network.plc_url, network.dids, processing=TINY_STEPS)
        killed_at_work = 0
        for _ in range(KILLS):
            killed_at_work += await kill_at_random(config, dice, network)
        assert killed_at_work >= KILLS // 2, "most kills came too early or too late to show anything"
        with opened(config) as state:
            came = await run_all(state)
            assert set(came.outcomes.values()) == {"complete"}
            assert verify_backfill(state) == []
            assert rows_by_author(state.config) == expected_rows(network)


async def kill_at_random(config: Path, dice: random.Random, network: LocalNetwork) -> bool:
    """Start a run and kill it some time after its first request of a repo; whether it was at work then."""
    before = network.pds_requests()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, str(config), stdout=asyncio.subprocess.DEVNULL
    )
    for _ in range(2000):
        if network.pds_requests() != before or process.returncode is not None:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(dice.uniform(0, 0.4))
    was_at_work = process.returncode is None and network.pds_requests() != before
    if process.returncode is None:
        process.kill()
    await process.wait()
    return was_at_work
