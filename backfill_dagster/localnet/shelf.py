"""Packed repos, made when somebody first asks and kept within a memory budget; edited ones are kept for good."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from backfill_dagster.localnet.repo_writer import RepoBytes


class RepoShelf:
    """Repos by DID.

    Args:
        make: makes the repo of a DID; always the same bytes.
        budget_bytes: for repos that can be made again.
    """

    def __init__(self, make: Callable[[str], RepoBytes], budget_bytes: int) -> None:
        self._make = make
        self._budget_bytes = budget_bytes
        self._made: OrderedDict[str, RepoBytes] = OrderedDict()
        self._made_bytes = 0
        self._pinned: dict[str, RepoBytes] = {}

    def has(self, did: str) -> bool:
        """Whether `get` would answer without making the repo."""
        return did in self._pinned or did in self._made

    def get(self, did: str) -> RepoBytes:
        """The repo as it is now."""
        if did in self._pinned:
            return self._pinned[did]
        if did in self._made:
            self._made.move_to_end(did)
            return self._made[did]
        repo = self._make(did)
        self.keep(did, repo)
        return repo

    def keep(self, did: str, repo: RepoBytes) -> None:
        """Put a repo that was just made on the shelf; the longest unused go."""
        if self.has(did):
            return
        self._made[did] = repo
        self._made_bytes += repo.size_bytes
        while self._made_bytes > self._budget_bytes and len(self._made) > 1:
            _, oldest = self._made.popitem(last=False)
            self._made_bytes -= oldest.size_bytes

    def pin(self, did: str, repo: RepoBytes) -> None:
        """Replace a repo for good: it holds what can't be made again."""
        made = self._made.pop(did, None)
        if made is not None:
            self._made_bytes -= made.size_bytes
        self._pinned[did] = repo
