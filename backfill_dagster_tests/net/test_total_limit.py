"""One pace for everything, in one process and over several."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from backfill_dagster.errors import StateError
from backfill_dagster.net import TotalLimiter
from backfill_dagster_tests.net.virtual_time import VirtualTime


async def turns(time: VirtualTime, limiters: list[TotalLimiter], count: int) -> list[float]:
    taken: list[float] = []

    async def one(limiter: TotalLimiter) -> None:
        await limiter.wait()
        taken.append(time.now)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(limiters[n % len(limiters)]) for n in range(count)))

    await time.run(all_of_them())
    return taken


async def test_requests_are_spaced() -> None:
    time = VirtualTime()
    assert await turns(time, [TotalLimiter(4, time.effects())], 4) == pytest.approx([0, 0.25, 0.5, 0.75])


async def test_without_a_rate_nobody_waits(tmp_path: Path) -> None:
    time = VirtualTime()
    shared = tmp_path / "pace"
    assert await turns(time, [TotalLimiter(None, time.effects(), shared)], 3) == [0, 0, 0]
    assert not shared.exists()


async def test_a_shared_file_makes_one_pace_of_several_limiters(tmp_path: Path) -> None:
    time = VirtualTime()
    shared = tmp_path / "locks" / "pace"
    limiters = [TotalLimiter(2, time.effects(), shared) for _ in range(3)]
    assert await turns(time, limiters, 6) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])


@pytest.mark.parametrize("left_over", [struct.pack("<d", 1e9), struct.pack("<d", float("nan")), b"xy"])
async def test_a_left_over_of_an_earlier_boot_is_ignored(tmp_path: Path, left_over: bytes) -> None:
    shared = tmp_path / "pace"
    shared.write_bytes(left_over)
    time = VirtualTime()
    assert await turns(time, [TotalLimiter(2, time.effects(), shared)], 2) == pytest.approx([0, 0.5])


async def test_a_file_that_cannot_be_used_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="BACKFILL_LOCK_DIR"):
        await TotalLimiter(2, VirtualTime().effects(), tmp_path).wait()
