"""What every generation of a plan has to keep, checked one by one against a fold of its own."""

from __future__ import annotations

import io
from collections import Counter, defaultdict

import pyarrow.parquet as pq

from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, Shard
from backfill_dagster.plan.generation import planned_dids


def rows_of_generation(data: bytes) -> list[PlannedDid]:
    return [one for batch in pq.ParquetFile(io.BytesIO(data)).iter_batches() for one in planned_dids(batch)]


class PlanRules:
    """The plan so far, generation by generation; an AssertionError where a generation breaks a rule.

    Attributes:
        current: DID -> its current row.
        sources: the lists of DIDs that have been the source since the last generation was committed, newest last.
    """

    def __init__(self) -> None:
        self.current: dict[str, PlannedDid] = {}
        self.sources: list[frozenset[str]] = []
        self._last: dict[str, int] = {}

    def source_is(self, dids: list[str]) -> None:
        self.sources.append(frozenset(dids))

    @property
    def listed(self) -> frozenset[str]:
        return frozenset(did for did, one in self.current.items() if not one.delisted)

    def committed(self, data: bytes, shard_size: int, *, keep_sources: bool = False) -> None:
        """Take the next generation; `keep_sources` when nobody knows which source was the newest by then."""
        rows = rows_of_generation(data)
        assert len({one.did for one in rows}) == len(rows), "a DID has two current shards"
        entered: Counter[str] = Counter()
        for one in rows:
            before = self.current.get(one.did)
            if one.shard != UNROUTABLE_SHARD and (before is None or before.shard != one.shard):
                entered[one.shard] += 1
            if before is not None:
                _check_change(before, one)
        self.current |= {one.did: one for one in rows}
        self._check_entered(entered, shard_size)
        assert self.listed in self.sources, "a DID of the source is lost, or one that had left it is back"
        if not keep_sources:
            self.sources = self.sources[-1:]

    def _check_entered(self, entered: Counter[str], shard_size: int) -> None:
        """Only a host's last shard is topped up, then the next ones open, none skipped; none beyond its size."""
        taken = Counter(one.shard for one in self.current.values())
        numbers: dict[str, list[int]] = defaultdict(list)
        for key in entered:
            assert taken[key] <= shard_size, f"{key} was topped up to {taken[key]} of {shard_size}"
            numbers[Shard.parse(key).host].append(Shard.parse(key).number)
        for host, given in numbers.items():
            last = self._last.get(host, -1)
            new = sorted(number for number in given if number != last)
            assert new == list(range(last + 1, last + 1 + len(new))), f"{host}: {sorted(given)} after {last}"
            self._last[host] = max(last, *given)


def _check_change(before: PlannedDid, now: PlannedDid) -> None:
    if UNROUTABLE_SHARD in (before.shard, now.shard):
        is_silence = now.outcome is Outcome.PENDING and before.shard != UNROUTABLE_SHARD
        assert not is_silence, "a silent directory took a shard away"
    elif before.shard != now.shard:
        assert Shard.parse(before.shard).host != Shard.parse(now.shard).host, "reshuffled without having moved"
