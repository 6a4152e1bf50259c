"""How long what DynamoDB refuses for the moment is tried again: backoff with jitter, bounded in tries and in time."""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds, and the clock, the dice and the pillow.

    Attributes:
        tries_max: tries in a row that bring nothing; one that brings something counts anew.
        seconds_max: of all tries together.
        first_seconds: longest wait before the second try; doubles with each fruitless one.
        longest_seconds: where the doubling ends.
        sleep: waits, seconds.
        monotonic: seconds of a clock that never jumps.
        random: 0 to 1: the share of a wait that is waited, so that those who were refused together don't come back so.
    """

    tries_max: int = 12
    seconds_max: float = 300.0
    first_seconds: float = 0.05
    longest_seconds: float = 10.0
    sleep: Callable[[float], object] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    random: Callable[[], float] = field(default=random_module.random)

    def trying(self) -> Trying:
        """A piece of work begins."""
        return Trying(self)


class Trying:
    """One piece of work and its tries."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._began = patience.monotonic()
        self._fruitless = 0

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._patience.monotonic() - self._began

    def again(self, *, progress: bool = False) -> bool:
        """Wait before the next try; False, at once, when there has been enough of it."""
        patience = self._patience
        self._fruitless = 0 if progress else self._fruitless + 1
        if self._fruitless >= patience.tries_max or self.seconds >= patience.seconds_max:
            return False
        longest = min(patience.longest_seconds, patience.first_seconds * 2**self._fruitless)
        patience.sleep(longest * patience.random())
        return True
