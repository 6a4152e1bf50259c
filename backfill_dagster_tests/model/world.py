"""One state of the model: what is on the disk, in the ledger and in the lease table, and what each writer remembers.

Everything is a hashable value; a step makes a new one. What a log adds up to is in `folding.py`, who may do what next
in `steps.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

Row: TypeAlias = tuple[str, int]
"""All rows that a DID had at one fetch: (DID, version of its repo). The model needs no smaller unit."""

Items: TypeAlias = frozenset[tuple[str, int]]
"""Ledger items: (DID, seq of the entry that the item is of)."""


class Part(NamedTuple):
    """A Parquet file. Shard, seq, epoch and a unique id are its name; within an epoch the seq is unique enough."""

    epoch: int
    seq: int
    rows: frozenset[Row]


class Entry(NamedTuple):
    """A log entry; its seq is its place in the log.

    The epoch is the nonce too: a lease gives each epoch to one process, and that tries each number once.
    """

    epoch: int
    adds: frozenset[Part] = frozenset()
    removes: frozenset[Part] = frozenset()
    dids: frozenset[Row] = frozenset()
    supersedes: frozenset[str] = frozenset()

    @property
    def is_seal(self) -> bool:
        """Whether it carries nothing but its epoch."""
        return not (self.adds or self.removes or self.dids or self.supersedes)


Log: TypeAlias = tuple[Entry, ...]


class At(StrEnum):
    """The durable call that a writer does next."""

    OFF = "not running"
    READING = "read the log"
    SEALING = "seal it"
    RECOVERING = "publish live parts"
    MENDING = "mend the ledger"
    SWEEPING = "sweep"
    WORKING = "stage a part, or be done"
    APPENDING = "append an entry"
    UNSURE = "read back what became of it"
    PUBLISHING = "publish its parts"
    BOOKING = "write its ledger items"
    DELETING = "delete the parts that it replaced"


class Writer(NamedTuple):
    """A process. It has no name: an epoch is one life of one process, and says all that matters.

    Attributes:
        starts_left: how often it may still be started.
        at: where it is.
        epoch: of its lease; 0 while it isn't running.
        wanted: what its plan asks for; the versions are those that a fetch gets.
        seen: the log as it has read and written it.
        entry: what it wants to append.
        to_publish: parts of its last entry that aren't published yet.
        to_book: ledger items of its last entry that aren't written yet.
        to_delete: parts that its last entry replaced and that aren't deleted yet.
    """

    starts_left: int
    at: At = At.OFF
    epoch: int = 0
    wanted: frozenset[Row] = frozenset()
    seen: Log = ()
    entry: Entry | None = None
    to_publish: tuple[Part, ...] = ()
    to_book: Items = frozenset()
    to_delete: tuple[Part, ...] = ()

    @property
    def next_seq(self) -> int:
        """The number that it counts on."""
        return len(self.seen) + 1

    def off(self) -> Writer:
        """The process has ended, however: all that it knew is gone."""
        return Writer(self.starts_left)


class World(NamedTuple):
    """One state.

    Attributes:
        plans: what a run may be asked for: it goes by the plan that it has read before it took the lease.
        writers: the processes, in an order of no meaning: two worlds that differ in who is who are one.
        log: entry by number; None where one was deleted.
        snapshot: the entries that the newest snapshot has folded.
        staging: files in `staging/`.
        records: files in `records/`: what a plain glob sees.
        ledger: one item per DID.
        lease_epoch: the newest epoch that was given away.
        finished: what the newest holder of the lease was asked for, if its run has gone through and let go; None while
            it is at work, and if it has stopped otherwise.
        told: (seq, epoch) of every append that a writer took for committed.
    """

    plans: tuple[frozenset[Row], ...]
    writers: tuple[Writer, ...]
    log: tuple[Entry | None, ...] = ()
    snapshot: Log = ()
    staging: frozenset[Part] = frozenset()
    records: frozenset[Part] = frozenset()
    ledger: Items = frozenset()
    lease_epoch: int = 0
    finished: frozenset[Row] | None = None
    told: frozenset[tuple[int, int]] = frozenset()

    def then(self, before: Writer, after: Writer, **changes: Any) -> World:
        """The world after `before` has become `after` and `changes` have been made."""
        others = list(self.writers)
        others.remove(before)
        return self._replace(writers=in_order((*others, after)), **changes)

    def read(self) -> Log:
        """What a reader of the log gets: the snapshot, and what follows it. Where no entry is missing, all of them."""
        if None not in self.log:
            return self.log  # type: ignore[return-value]  # just looked
        log = list(self.snapshot)
        for entry in self.log[len(log) :]:
            if entry is None:
                break
            log.append(entry)
        return tuple(log)

    def entry(self, seq: int) -> Entry | None:
        """The entry of that number, if it is there."""
        return self.log[seq - 1] if seq <= len(self.log) else None

    def with_entry(self, seq: int, entry: Entry) -> tuple[Entry | None, ...]:
        """The log with the entry under that number."""
        return (*self.log[: seq - 1], entry, *self.log[seq:])


def in_order(writers: Iterable[Writer]) -> tuple[Writer, ...]:
    """One order of the writers, whoever they are: running ones differ in epoch, others have no memory."""
    return tuple(sorted(writers, key=lambda writer: (writer.epoch, writer.starts_left)))


def by_name(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts in the order in which they are listed."""
    return tuple(sorted(parts, key=lambda part: (part.seq, part.epoch)))
