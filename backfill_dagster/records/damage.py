"""Which entries of a shard's log can't count: missing, unreadable, out of the chain. Pure.

How entries are loaded and what a void one means is `log.py`'s, what is done about it `worker.repair`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from backfill_dagster.records.entry import LogEntry


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A number of the log under which there is no entry, and why.

    Attributes:
        seq: the number.
        problem: why.
        is_filler: a repair has taken the number, so no writer's entry was ever there.
    """

    seq: int
    problem: str
    is_filler: bool = False


def damaged_entries(loaded: Sequence[LogEntry | Unreadable]) -> dict[int, str]:
    """Seq -> what is wrong with the entry, of all that can't count; those that are listed as void are left out.

    Where entries don't follow from each other, two histories were mixed: of the chains that don't fit together, as few
    entries as possible are wrong. Where it can't be told which ones, all that may be are.

    Args:
        loaded: the log from its first number on, without gaps.
    """
    void = {seq for entry in loaded if isinstance(entry, LogEntry) for seq in entry.voids}
    problems = {entry.seq: entry.problem for entry in loaded if isinstance(entry, Unreadable) and entry.seq not in void}
    for chains in _stretches(loaded, void):
        for number in _misfits([len(chain) for chain in chains]):
            if number:
                said = f"doesn't follow from entry {chains[number - 1][-1].seq}"
            else:
                said = f"isn't followed by entry {chains[1][0].seq}"
            problems.update((entry.seq, said) for entry in chains[number])
    return problems | _left_over(loaded, {*void, *problems})


def _misfits(lengths: Sequence[int]) -> list[int]:
    """Which of some chains can be left out so that no two neighbours stay, and as many entries as possible do."""
    ahead, behind = _most_kept(lengths), _most_kept(lengths[::-1])
    most = ahead[-1]
    return [number for number in range(len(lengths)) if ahead[number] + behind[len(lengths) - 1 - number] == most]


def _most_kept(lengths: Sequence[int]) -> list[int]:
    """How many entries can stay of the first 0, 1, 2 … chains."""
    most = [0]
    for number, length in enumerate(lengths):
        most.append(max(most[-1], (most[number - 1] if number else 0) + length))
    return most


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
