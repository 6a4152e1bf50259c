"""Pacing, pausing and coming back, on a clock of the tests' own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from backfill_dagster.net import HostLimiter
from backfill_dagster.net.evidence import pause_seconds
from backfill_dagster_tests.net.virtual_time import START, VirtualTime

HOUR = 3600


@dataclass
class Host:
    """A host that serves so many requests a window, as a sliding log or in fixed windows, with or without headers."""

    time: VirtualTime
    budget: int
    window_seconds: float = 300.0
    is_fixed: bool = False
    says_when: bool = False
    answer_seconds: float = 0.05
    asked: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    _recent: deque[float] = field(default_factory=deque)

    def ask(self) -> tuple[bool, dict[str, str]]:
        now = self.time.now
        self.asked.append(now)
        start = now // self.window_seconds * self.window_seconds if self.is_fixed else now - self.window_seconds
        while self._recent and self._recent[0] < start:
            self._recent.popleft()
        reset = START + start + self.window_seconds if self.is_fixed else START + now + self.window_seconds
        is_served = len(self._recent) < self.budget
        if is_served:
            self._recent.append(now)
            self.served.append(now)
        else:
            self.refused.append(now)
        headers = {
            "ratelimit-limit": str(self.budget),
            "ratelimit-remaining": str(self.budget - len(self._recent)),
            "ratelimit-reset": str(reset),
        }
        return is_served, headers if self.says_when else {}


async def use(
    host: Host, limiter: HostLimiter, *, hours: float, concurrency: int = 8, tells_headers: bool = True
) -> None:
    async def worker() -> None:
        while host.time.now < hours * 3600:
            async with limiter.slot() as slot:
                is_served, headers = host.ask()
                await host.time.sleep(host.answer_seconds)
                if is_served:
                    slot.succeeded(headers if tells_headers else None)
                else:
                    slot.rate_limited(pause_seconds(headers, START + host.time.now))

    await asyncio.gather(*(worker() for _ in range(concurrency)))


async def simulate(host: Host, rate: float, *, hours: float = 1.0, seed: int = 0, **how: bool) -> HostLimiter:
    limiter = HostLimiter(rate, host.time.effects(seed))
    await host.time.run(use(host, limiter, hours=hours, **how))
    return limiter


async def test_requests_are_spaced_evenly_without_a_burst() -> None:
    host = Host(VirtualTime(), 10**9)
    await simulate(host, 10.0, hours=10 / 3600)
    gaps = [later - earlier for earlier, later in zip(host.asked, host.asked[1:], strict=False)]
    assert len(host.asked) == 100 + 7  # 99 spaces of 0.101 s in ten seconds, and those still in line then
    assert min(gaps) == pytest.approx(0.101)
    assert max(gaps) == pytest.approx(0.101)


async def test_idle_time_is_not_saved_up() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())
    taken: list[float] = []

    async def three() -> None:
        await time.sleep(100)
        for _ in range(3):
            async with limiter.slot() as slot:
                taken.append(time.now)
                slot.succeeded()

    await time.run(three())
    assert taken == pytest.approx([100.0, 100.101, 100.202])


async def test_the_line_is_first_come_first_served() -> None:
    time = VirtualTime()
    limiter = HostLimiter(1.0, time.effects())
    order: list[int] = []

    async def one(number: int) -> None:
        async with limiter.slot() as slot:
            order.append(number)
            slot.succeeded()

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(5)))

    await time.run(all_of_them())
    assert order == [0, 1, 2, 3, 4]
    assert time.now == pytest.approx(4.04)


async def test_someone_who_leaves_the_line_holds_nobody_up() -> None:
    time = VirtualTime()
    limiter = HostLimiter(1.0, time.effects())
    order: list[int] = []

    async def one(number: int) -> None:
        async with limiter.slot():
            order.append(number)

    async def leaving() -> None:
        tasks = [asyncio.create_task(one(number)) for number in range(4)]
        await time.sleep(0.5)
        tasks[1].cancel()  # at the head of the line, asleep
        tasks[2].cancel()  # behind it
        await asyncio.gather(*tasks, return_exceptions=True)

    await time.run(leaving())
    assert order == [0, 3]
    assert time.now == pytest.approx(1.01)


async def first_pauses(time: VirtualTime, limiter: HostLimiter, asked: list[float | None]) -> list[float]:
    pauses = []
    for seconds in asked:
        async with limiter.slot() as slot:
            slot.rate_limited(seconds)
        pauses.append(limiter.pause_seconds)
    return pauses


async def test_pauses_without_headers_double_to_five_minutes_and_halve_the_rate_once() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())
    pauses = await time.run(first_pauses(time, limiter, [None] * 8))
    for pause, base in zip(pauses, [15, 30, 60, 120, 240, 300, 300, 300], strict=True):
        assert base <= pause <= base * 1.1
    assert len(set(pauses)) == 8  # jitter
    assert limiter.rate_per_second == 5.0


async def test_pauses_with_headers_are_what_was_asked_for_within_bounds() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())
    pauses = await time.run(first_pauses(time, limiter, [42.0, 0.0, 10.0**9]))
    for pause, base in zip(pauses, [42, 1, 3600], strict=True):
        assert base <= pause <= base * 1.1
    assert limiter.rate_per_second == 10.0


async def test_pause_seconds_counts_down_to_nothing() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())
    assert limiter.pause_seconds == 0.0
    (pause,) = await time.run(first_pauses(time, limiter, [30.0]))
    await time.run(time.sleep(pause - 1))
    assert limiter.pause_seconds == pytest.approx(1.0)
    await time.run(time.sleep(2))
    assert limiter.pause_seconds == 0.0


async def test_refusals_of_requests_from_before_the_pause_say_nothing_new() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())

    async def one(delay: float) -> None:
        async with limiter.slot() as slot:
            await time.sleep(delay)
            slot.rate_limited(None)

    async def eight() -> None:
        await asyncio.gather(*(one(5 + number) for number in range(8)))

    await time.run(eight())
    assert limiter.rate_per_second == 5.0
    assert limiter.pause_seconds <= 15 * 1.1 - 7


async def test_a_late_success_from_before_the_pause_does_not_end_the_episode() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())

    async def scene() -> None:
        async with limiter.slot() as early:
            async with limiter.slot() as second:
                second.rate_limited(None)
            early.succeeded()
        async with limiter.slot() as probe:
            probe.rate_limited(None)

    await time.run(scene())
    assert limiter.rate_per_second == 5.0
    assert 30 <= limiter.pause_seconds <= 33


async def test_after_the_pause_one_request_probes_and_the_others_wait_for_it() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())
    entered: list[float] = []

    async def one() -> None:
        async with limiter.slot() as slot:
            entered.append(time.now)
            await time.sleep(20)
            slot.succeeded()

    async def scene() -> None:
        async with limiter.slot() as slot:
            slot.rate_limited(10.0)
        await asyncio.gather(*(one() for _ in range(4)))

    await time.run(scene())
    probe = entered[0]
    assert 10 <= probe <= 11
    assert entered[1:] == pytest.approx([probe + 20, probe + 20.101, probe + 20.202])


async def test_a_probe_that_ends_in_a_fault_hands_the_part_to_the_next() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())
    entered: list[float] = []

    async def one(is_fault: bool) -> None:
        async with limiter.slot() as slot:
            entered.append(time.now)
            await time.sleep(20)
            if not is_fault:
                slot.succeeded()

    async def scene() -> None:
        async with limiter.slot() as slot:
            slot.rate_limited(10.0)
        await asyncio.gather(one(True), one(False), one(False), one(False))

    await time.run(scene())
    probe = entered[0]
    assert entered[1:] == pytest.approx([probe + 20, probe + 40, probe + 40.101])


async def test_the_first_word_of_a_slot_counts() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())

    async def scene() -> None:
        async with limiter.slot() as slot:
            slot.succeeded()
            slot.rate_limited(None)
        async with limiter.slot() as slot:
            slot.rate_limited(20.0)
            slot.succeeded()
            slot.rate_limited(None)

    await time.run(scene())
    assert limiter.rate_per_second == 10.0
    assert 20 <= limiter.pause_seconds <= 22


async def test_fifty_successes_give_five_per_cent_back() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())

    async def successes(count: int) -> float:
        for _ in range(count):
            async with limiter.slot() as slot:
                slot.succeeded()
        return limiter.rate_per_second

    async def scene() -> list[float]:
        async with limiter.slot() as slot:
            slot.rate_limited(None)
        return [await successes(49), await successes(1), await successes(50), await successes(2000)]

    assert await time.run(scene()) == pytest.approx([5.0, 5.25, 5.5125, 10.0])


async def test_the_rate_never_falls_to_nothing() -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())

    async def episodes() -> None:
        for _ in range(30):
            async with limiter.slot() as slot:
                slot.rate_limited(None)
            async with limiter.slot() as slot:
                slot.succeeded()

    await time.run(episodes())
    assert limiter.rate_per_second == pytest.approx(1 / 30)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"ratelimit-remaining": "0", "ratelimit-reset": str(START + 60)}, 60.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": str(START + 9999)}, 300.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        ({"ratelimit-remaining": "1", "ratelimit-reset": str(START + 60)}, 0.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": str(START - 60)}, 0.0),
        ({"ratelimit-remaining": "0"}, 0.0),
        ({"ratelimit-remaining": "none"}, 0.0),
    ],
)
async def test_a_success_that_used_up_the_budget_waits_for_the_window(headers: Mapping[str, str], pause: float) -> None:
    time = VirtualTime()
    limiter = HostLimiter(10.0, time.effects())

    async def one() -> None:
        async with limiter.slot() as slot:
            slot.succeeded(headers)

    await time.run(one())
    assert pause <= limiter.pause_seconds <= pause * 1.1
    assert limiter.rate_per_second == 10.0


@pytest.mark.parametrize("is_fixed", [False, True])
async def test_ten_a_second_against_3000_per_5_minutes_without_headers(is_fixed: bool) -> None:
    """The rate that Bluesky's hosts bear: no 429, next to full speed."""
    host = Host(VirtualTime(), 3000, is_fixed=is_fixed)
    await simulate(host, 10.0)
    assert len(host.refused) == 0
    assert len(host.served) / HOUR >= 9.85


@pytest.mark.parametrize("seed", range(2))
async def test_twenty_a_second_against_3000_per_5_minutes_without_headers(seed: int) -> None:
    host = Host(VirtualTime(), 3000)
    await simulate(host, 20.0, seed=seed)
    assert len(host.served) / HOUR >= 7.5
    assert len(host.refused) / len(host.asked) <= 0.01


async def test_a_host_of_two_a_second_is_left_in_peace_too() -> None:
    host = Host(VirtualTime(), 600)
    await simulate(host, 10.0, hours=4)
    assert len(host.served) / (4 * HOUR) >= 1.4
    assert len(host.refused) / len(host.asked) <= 0.02


async def test_with_headers_the_budget_is_used_whole_and_hardly_ever_overdrawn() -> None:
    host = Host(VirtualTime(), 3000, is_fixed=True, says_when=True)
    await simulate(host, 20.0)
    assert len(host.served) / HOUR >= 9.3
    assert len(host.refused) <= 12  # one a window at most: the budget's last success comes after the next request


async def test_429_headers_alone_are_enough() -> None:
    host = Host(VirtualTime(), 3000, is_fixed=True, says_when=True)
    limiter = await simulate(host, 20.0, tells_headers=False)
    assert len(host.served) / HOUR >= 9.3
    assert len(host.refused) <= 12 * 2
    assert limiter.rate_per_second == 20.0
