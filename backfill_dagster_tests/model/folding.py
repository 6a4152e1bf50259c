"""What a log adds up to: the model's own arithmetic of live parts and dead rows, which the code's `Fold` is held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from backfill_dagster_tests.model.world import Items, Log, Part, Row


class Folded(NamedTuple):
    """A log added up.

    Attributes:
        parts: live part -> the seq that added it.
        dids: DID -> (version of its last complete fetch, the seq that says so).
        superseded: DID -> the seq below which its rows are dead.
        live_rows: rows of live parts that aren't dead, sorted; one that is there twice comes twice.
    """

    parts: Mapping[Part, int]
    dids: Mapping[str, tuple[int, int]]
    superseded: Mapping[str, int]
    live_rows: tuple[Row, ...]

    @property
    def complete_rows(self) -> tuple[Row, ...]:
        """The rows that there have to be: one version of each complete DID."""
        return tuple(sorted((did, version) for did, (version, _) in self.dids.items()))

    @property
    def items(self) -> Items:
        """What the ledger has to say."""
        return frozenset((did, seq) for did, (_, seq) in self.dids.items())

    def pending(self, wanted: frozenset[Row]) -> list[Row]:
        """What is still to be fetched."""
        return sorted((did, version) for did, version in wanted if version > self.dids.get(did, (0, 0))[0])

    def dead_in(self, part: Part) -> frozenset[Row]:
        """The dead rows of a live part."""
        seq = self.parts[part]
        return frozenset(row for row in part.rows if seq < self.superseded.get(row[0], 0))

    def with_dead_rows(self) -> list[Part]:
        """The live parts that a rewrite has to replace."""
        return [part for part in self.parts if self.dead_in(part)]


@cache
def fold(log: Log) -> Folded:
    """Add a log up, entry by entry."""
    parts: dict[Part, int] = {}
    dids: dict[str, tuple[int, int]] = {}
    superseded: dict[str, int] = {}
    for seq, entry in enumerate(log, start=1):
        for part in entry.removes:
            parts.pop(part, None)
        parts.update(dict.fromkeys(entry.adds, seq))
        dids.update((did, (version, seq)) for did, version in entry.dids)
        superseded.update(dict.fromkeys(entry.supersedes, seq))
    folded = Folded(parts, dids, superseded, ())
    return folded._replace(live_rows=rows_of(parts, folded))


def rows_of(parts: Iterable[Part], folded: Folded | None = None) -> tuple[Row, ...]:
    """All rows of some parts, sorted; without the dead ones if a fold says which those are."""
    return tuple(sorted(row for part in parts for row in part.rows - (folded.dead_in(part) if folded else frozenset())))
