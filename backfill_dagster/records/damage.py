"""Which entries of a shard's log can't count: missing, unreadable, out of the chain. Pure.

How entries are loaded and what a void one means is `log.py`'s, what is done about it `worker.repair`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from backfill_dagster.records.entry import LogEntry


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A number of the log under which there is no entry, and why."""

    seq: int
    problem: str


def damaged_entries(loaded: Sequence[LogEntry | Unreadable]) -> dict[int, str]:
    """Seq -> what is wrong with the entry, of all that can't count; those that are listed as void are left out.

    Where two entries don't follow from each other, the shorter of the two chains is wrong; of equal ones both are.

    Args:
        loaded: the log from its first number on, without gaps.
    """
    void = {seq for entry in loaded if isinstance(entry, LogEntry) for seq in entry.voids}
    problems = {entry.seq: entry.problem for entry in loaded if isinstance(entry, Unreadable) and entry.seq not in void}
    for chains in _stretches(loaded, void):
        for first, second in pairwise(chains):
            if len(first) <= len(second):
                said = f"isn't followed by entry {second[0].seq}"
                problems.update((entry.seq, said) for entry in first if entry.seq not in problems)
            if len(second) <= len(first):
                problems.update((entry.seq, f"doesn't follow from entry {first[-1].seq}") for entry in second)
    return problems | _left_over(loaded, {*void, *problems})


def _stretches(loaded: Sequence[LogEntry | Unreadable], void: Collection[int]) -> Iterator[list[list[LogEntry]]]:
    """The entries between two that can't count, cut into chains where one doesn't follow from the one before."""
    chains: list[list[LogEntry]] = []
    for entry in loaded:
        if isinstance(entry, Unreadable) or entry.seq in void:
            yield chains
            chains = []
        elif chains and _follows(entry, chains[-1][-1]):
            chains[-1].append(entry)
        else:
            chains.append([entry])
    yield chains


def _follows(entry: LogEntry, before: LogEntry) -> bool:
    return entry.prev == before.own and entry.epoch >= before.epoch


def _left_over(loaded: Sequence[LogEntry | Unreadable], void: Collection[int]) -> dict[int, str]:
    """What can't be read on from even so: a beginning that isn't one, an epoch of earlier days."""
    problems: dict[int, str] = {}
    epoch = 0
    for entry in loaded:
        if isinstance(entry, Unreadable) or entry.seq in void:
            continue
        if entry.epoch < epoch:
            problems[entry.seq] = f"has epoch {entry.epoch} after epoch {epoch}"
        elif entry.seq == 1 and entry.prev:
            problems[entry.seq] = "is the first and says that it isn't"
        else:
            epoch = entry.epoch
    return problems
