"""What is live in every shard, as one picture although runs go on meanwhile: plan and logs read, no part opened.

A log by itself is exact at any moment. Two of them matter together for accounts that move: the new shard commits the
repo first, then the old one lets its rows go, and logs are read one after the other. So whoever is known in another
shard than the plan's has his current shard's log read once more, after the one that may have let go of him; and a
picture that a new plan has overtaken is no picture at all. `query_views.py` turns it into rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from backfill_dagster.model import Outcome, PlannedDid, RepoOutcome
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.standing import logged_shards
from backfill_dagster.state import BackfillState

FOREVER = 2**62
"""A seq above all others: rows that are superseded by it are dead in every part of the shard."""

OnShard = Callable[[str, Sequence[PlannedDid], Fold], None]

Age = tuple[str, str]
"""How new a DID's rows are, to be compared between shards: the repo's rev, then the time of the outcome."""


class OvertakenError(Exception):
    """The state has changed under the reader's feet: start over. Never leaves this package."""


@dataclass(frozen=True)
class LiveShard:
    """Where a shard's live rows are.

    Attributes:
        parts: live parts, oldest first.
        superseded: DID -> its rows in parts of a lower seq are dead.
    """

    parts: Sequence[LivePart]
    superseded: Mapping[str, int]

    def is_clean(self, live: LivePart) -> bool:
        """Whether no row of this part can be dead."""
        return live.seq >= self._newest

    @cached_property
    def _newest(self) -> int:
        return max(self.superseded.values(), default=0)


class _Word(NamedTuple):
    """What a shard's log says of a DID that is another's now: since which entry; None: it has no rows (any more)."""

    seq: int
    age: Age | None


@dataclass(frozen=True)
class _Seen:
    """A shard as of the entry `seq` of its log; `strangers` are the DIDs that it knows and that are another's now."""

    seq: int
    live: LiveShard
    strangers: Mapping[str, _Word]


def live_shards(state: BackfillState, on_shard: OnShard) -> dict[str, LiveShard]:
    """Every shard that has DIDs or a log, the reserved one too.

    Args:
        state: the backfill.
        on_shard: gets each shard's current DIDs and its log; a second time when the log had to be read again, and
            then only the second time counts.

    Raises:
        OvertakenError: the plan has changed meanwhile.
        StateError: plan or a log can't be read.
    """
    plan = PlanStore(state.store).read()
    reader = _Reader(state, plan, on_shard)
    reader.read_all()
    reader.settle()
    if PlanStore(state.store).read().generation != plan.generation:
        raise OvertakenError
    return reader.picture()


class _Reader:
    def __init__(self, state: BackfillState, plan: Plan, on_shard: OnShard) -> None:
        self._state, self._plan, self._on_shard = state, plan, on_shard
        self._seen: dict[str, _Seen] = {}
        self._homes: dict[str, str | None] = {}
        self._guests: dict[str, set[str]] = defaultdict(set)
        self._held: set[str] = set()
        self._judged: set[str] = set()
        self._settled: set[str] = set()

    def read_all(self) -> None:
        """Every shard once: those that have DIDs, then those that only have a log any more."""
        for shard, planned in self._plan.by_shard():
            self._read(shard, planned)
        for shard in sorted(logged_shards(self._state) - self._seen.keys()):
            self._read(shard, [])

    def settle(self) -> None:
        """Learn what the current shard of every stranger says of him, as of after the log that he is a stranger in.

        A shard is asked again only when a log that was read later says something new about its DIDs, so this ends.
        """
        waiting = self._find_homes(*self._seen.values())
        while waiting:
            further: set[str] = set()
            for shard in sorted(waiting):
                before = self._seen[shard]
                if self._guests[shard] & self._held <= self._judged and not self._has_grown(shard, before):
                    continue
                now = self._read(shard, self._plan.dids(shard))
                further |= self._find_homes(now)
                changed = [did for did, word in now.strangers.items() if word != before.strangers.get(did)]
                further |= {home for did in changed if (home := self._homes[did])}
            waiting = further

    def picture(self) -> dict[str, LiveShard]:
        """Of each DID the rows of one shard: the current one once it has the repo, until then the newest there are."""
        past: dict[str, set[str]] = defaultdict(set)
        for did, holders in self._holders().items():
            stale = holders if did in self._settled else sorted(holders)[:-1]
            for _, shard in stale:
                past[shard].add(did)
        return {
            shard: LiveShard(seen.live.parts, {**seen.live.superseded, **dict.fromkeys(past[shard], FOREVER)})
            for shard, seen in self._seen.items()
        }

    def _read(self, shard: str, planned: Sequence[PlannedDid]) -> _Seen:
        fold = self._state.log(shard).read()
        current = {one.did for one in planned}
        seen = self._seen[shard] = _Seen(
            fold.seq,
            LiveShard(list(fold.parts.values()), fold.superseded),
            {did: _Word(seq, _age(result)) for did, (result, seq) in fold.dids.items() if did not in current},
        )
        self._held |= {did for did, word in seen.strangers.items() if word.age is not None}
        guests = self._guests[shard]
        self._judged |= guests
        self._settled -= guests
        self._settled |= {did for did in guests & fold.dids.keys() if _has_repo(fold.dids[did][0])}
        self._on_shard(shard, planned, fold)
        return seen

    def _find_homes(self, *seen: _Seen) -> set[str]:
        """Look up the current shards of strangers that are new here, in one pass over the plan; returns them."""
        new = {did for one in seen for did in one.strangers} - self._homes.keys()
        if not new:
            return set()
        found = {one.did: one.shard for one in self._plan.rows() if one.did in new}
        self._homes |= dict.fromkeys(new) | found  # whom the plan has never heard of has no home
        for did, shard in found.items():
            self._guests[shard].add(did)
        return set(found.values())

    def _has_grown(self, shard: str, seen: _Seen) -> bool:
        """Whether the log has gone on since: it is dense, so the next entry tells."""
        return self._state.store.exists(self._state.log(shard).key(seen.seq + 1))

    def _holders(self) -> dict[str, list[tuple[Age, str]]]:
        """Strangers that have rows where they are strangers -> how new and where."""
        holders: dict[str, list[tuple[Age, str]]] = defaultdict(list)
        for shard, seen in self._seen.items():
            for did, word in seen.strangers.items():
                if word.age is not None:
                    holders[did].append((word.age, shard))
        return holders


def _age(result: RepoOutcome) -> Age | None:
    if not result.has_rows:
        return None
    return (result.last_complete_rev or "", result.finished_at or "")


def _has_repo(result: RepoOutcome) -> bool:
    """Whether a current shard's word on a DID ends its rows elsewhere."""
    return not result.outcome.needs_attention or result.outcome is Outcome.PURGED or result.has_rows
