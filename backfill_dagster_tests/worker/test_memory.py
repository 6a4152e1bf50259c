"""The memory budget: never more held than allowed, never nobody at work."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from backfill_dagster.worker.memory import FIRST_GUESS_BYTES, MemoryBudget
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import assert_sound, state_of, tiny

MIB = 1024 * 1024


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_as_many_as_fit_by_the_first_guess() -> None:
    budget = MemoryBudget(3 * FIRST_GUESS_BYTES)
    inside: list[int] = []
    leave = asyncio.Event()

    async def fetch(number: int) -> None:
        async with budget.admit():
            inside.append(number)
            await leave.wait()

    tasks = [asyncio.create_task(fetch(number)) for number in range(5)]
    await turns()
    assert inside == [0, 1, 2]
    leave.set()
    await asyncio.gather(*tasks)
    assert sorted(inside) == [0, 1, 2, 3, 4]


async def test_one_is_always_let_in_however_large() -> None:
    budget = MemoryBudget(1)
    async with budget.admit() as first:
        first.is_really(500 * MIB)
        waiting = asyncio.create_task(enter(budget))
        await turns()
        assert not waiting.done()
    await asyncio.wait_for(waiting, 1)


async def enter(budget: MemoryBudget) -> None:
    async with budget.admit():
        pass


async def test_a_large_body_keeps_others_out_and_small_ones_let_them_in_again() -> None:
    budget = MemoryBudget(10 * MIB)
    async with budget.admit() as large:
        large.is_really(8 * MIB)
        waiting = asyncio.create_task(enter(budget))
        await turns()
        assert not waiting.done(), "the next one is expected to be as large as the largest of late"
    await asyncio.wait_for(waiting, 1)
    for _ in range(40):
        async with budget.admit() as small:
            small.is_really(1000)
    async with AsyncExitStack() as stack:
        for _ in range(20):
            await asyncio.wait_for(stack.enter_async_context(budget.admit()), 1)


async def test_room_is_given_back_by_who_fails_or_is_cancelled() -> None:
    budget = MemoryBudget(1)
    with pytest.raises(RuntimeError):
        async with budget.admit():
            raise RuntimeError
    async with budget.admit():
        task = asyncio.create_task(enter(budget))
        await turns()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(enter(budget), 1)


async def test_a_run_with_hardly_any_memory_ends_all_the_same(folder: Path) -> None:
    async with tiny(repos=5) as network:
        with state_of(folder, network, processing={"memory_mib": 1, "concurrent_requests": 8}) as state:
            await run_all(state)
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)
