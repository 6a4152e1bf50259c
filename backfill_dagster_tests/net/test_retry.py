"""How often something is tried again, and after how long."""

from __future__ import annotations

import random

import pytest

from backfill_dagster.errors import NetworkError, NotFoundError, RateLimitedError, ServerFaultError
from backfill_dagster.net import RetryPolicy
from backfill_dagster_tests.net.virtual_time import InstantTime


class Failing:
    """Raises what it was given, one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_delays_are_fully_jittered_under_a_doubling_bound() -> None:
    policy = RetryPolicy(9, InstantTime().effects(7))
    dice = random.Random(7)
    bounds = [1, 2, 4, 8, 16, 32, 60, 60]
    assert [policy.delay_seconds(n) for n in range(8)] == [dice.uniform(0, bound) for bound in bounds]
    assert 0 <= policy.delay_seconds(10**9) <= 60


async def test_transient_faults_are_tried_again() -> None:
    time = InstantTime()
    operation = Failing(NetworkError("a"), ServerFaultError("b"), NetworkError("c"))
    assert await RetryPolicy(3, time.effects()).run(operation) == "answer"
    assert operation.calls == 4
    assert len(time.slept) == 3
    assert all(0 <= slept <= bound for slept, bound in zip(time.slept, [1, 2, 4], strict=True))


async def test_after_the_last_try_the_last_fault_is_raised() -> None:
    operation = Failing(*(NetworkError(str(n)) for n in range(9)))
    with pytest.raises(NetworkError, match=r"^2$"):
        await RetryPolicy(2, InstantTime().effects()).run(operation)
    assert operation.calls == 3


async def test_no_retries_means_one_try() -> None:
    time = InstantTime()
    with pytest.raises(NetworkError):
        await RetryPolicy(0, time.effects()).run(Failing(NetworkError("a")))
    assert time.slept == []


async def test_permanent_errors_are_not_tried_again() -> None:
    operation = Failing(NotFoundError("a"))
    with pytest.raises(NotFoundError):
        await RetryPolicy(3, InstantTime().effects()).run(operation)
    assert operation.calls == 1


async def test_rate_limits_are_neither_counted_nor_slept_on_but_bounded() -> None:
    time = InstantTime()
    policy = RetryPolicy(0, time.effects(), max_rate_limits=5)
    assert await policy.run(Failing(*(RateLimitedError("x") for _ in range(5)))) == "answer"
    assert time.slept == []
    with pytest.raises(RateLimitedError):
        await policy.run(Failing(*(RateLimitedError("x") for _ in range(6))))


async def test_without_rate_limits_the_first_429_ends_it() -> None:
    operation = Failing(RateLimitedError("x"))
    with pytest.raises(RateLimitedError):
        await RetryPolicy(3, InstantTime().effects()).without_rate_limits().run(operation)
    assert operation.calls == 1
