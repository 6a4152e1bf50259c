"""How a figure is taken: the median of a few rounds, and the longest of them where that is what people wait for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ROUNDS = 3


@dataclass(frozen=True)
class Figure:
    """One row of the table: `amount` of `unit` in `seconds`, or of something done `amount` times.

    Attributes:
        what: what was done.
        amount: how much of it, or how often.
        unit: of the amount.
        seconds: all of it took, or the median of the times.
        longest_seconds: the longest of the times; None: it was done once, and `seconds` is for the whole amount.
        asked: the bound in words, for the figures that have one; nothing checks it.
    """

    what: str
    amount: int
    unit: str
    seconds: float
    longest_seconds: float | None = None
    asked: str = ""

    @property
    def rate(self) -> float | None:
        """Units a second; None for a figure that is about how long one takes."""
        return self.amount / self.seconds if self.longest_seconds is None else None


def figure_of(what: str, times: Iterable[float], asked: str = "") -> Figure:
    """Median and maximum of times that were taken one by one.

    Args:
        what: what was done each time.
        times: seconds, at least one.
        asked: the bound in words.
    """
    taken = list(times)
    return Figure(what, len(taken), "times", statistics.median(taken), max(taken), asked)


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of the work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median wall time of the work."""
    return statistics.median(seconds_of(work) for _ in range(rounds))
