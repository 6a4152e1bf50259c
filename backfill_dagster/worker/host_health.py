"""When a host counts as dead: many DIDs in a row without an answer, and not one answer between them.

One DID's timeouts say nothing about its neighbours; so failures wait here as suspects until the next answer tells
whether it was the DID (http_error) or the host (pending, and the shard stops).
"""

from __future__ import annotations

from backfill_dagster.worker.repo import Missed

SUSPECTS_MAX = 8
"""DIDs in a row, each after all its retries, that get no answer before the host counts as dead."""


class HostHealth:
    """Collects the DIDs whose failure may be the host's."""

    def __init__(self) -> None:
        self._suspects: list[Missed] = []
        self._answered = False

    def answered(self) -> list[Missed]:
        """The host answered: it lives, and the suspects' failures were their own. Returns (and forgets) them."""
        self._answered = True
        cleared, self._suspects = self._suspects, []
        return cleared

    def failed(self, missed: Missed) -> None:
        """One more DID without an answer from the host."""
        self._suspects.append(missed)

    @property
    def is_down(self) -> bool:
        """Whether enough DIDs in a row got no answer."""
        return len(self._suspects) >= SUSPECTS_MAX

    @property
    def is_doubtful(self) -> bool:
        """At the end of a run: too few suspects to call the host dead, and not one answer to call it alive."""
        return bool(self._suspects) and not self.is_down and not self._answered

    def verdict(self) -> tuple[list[Missed], bool]:
        """At the end of a run: the suspects left, and whether the host is the reason."""
        return self._suspects, self.is_down or not self._answered
