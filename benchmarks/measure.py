"""How a figure is taken: the median of a few rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

ROUNDS = 3


@dataclass(frozen=True)
class Figure:
    """One row of the table: `amount` of `unit` in `seconds`."""

    what: str
    amount: int
    unit: str
    seconds: float


def median_seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median wall time of the work."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
