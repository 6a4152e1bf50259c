"""What a shard's log adds up to: live parts, the latest outcome per DID, which rows are dead. Pure.

**Which rows are live.** A part carries the seq of the entry that added it. An entry that supersedes a DID at seq n
kills that DID's rows in every live part with a seq *lower* than n; its rows in parts of n itself are the new ones. A
rewrite (removes and adds in one entry, at seq r) copies what is live into new parts, and those carry r, whatever seqs
their rows had before. That is right because the rewriter has folded everything below r, the log being dense, and has
left out every row that is dead by then: only a supersede above r can kill a row of a part of r.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from backfill_dagster.model import RepoOutcome
from backfill_dagster.records.entry import LogEntry, Part


@dataclass(frozen=True, slots=True)
class LivePart:
    """A part that the log says is live, and the seq of the entry that added it."""

    part: Part
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A log up to and with entry `seq`. A value: following entries make a new one.

    Attributes:
        seq: number of the last entry; 0 for an empty log.
        epoch: the last entry's epoch.
        own: the last entry's hash; empty when it can't be read (void) or there is none.
        entries: how many entries count, void ones not.
        parts: live parts by path, oldest first.
        dids: DID -> its latest outcome and the seq that says so.
        superseded: DID -> highest seq of an entry that supersedes it: rows of the DID in parts of a lower seq are dead.
        rewritten_seq: supersedes up to this seq have been carried out: their rows are in no live part any more.
        purged: DIDs and AT URIs that may never be stored again.
        voids: seqs of entries that can't be read and count as empty.
    """

    seq: int = 0
    epoch: int = 0
    own: str = ""
    entries: int = 0
    parts: Mapping[str, LivePart] = field(default_factory=dict)
    dids: Mapping[str, tuple[RepoOutcome, int]] = field(default_factory=dict)
    superseded: Mapping[str, int] = field(default_factory=dict)
    rewritten_seq: int = 0
    purged: frozenset[str] = frozenset()
    voids: frozenset[int] = frozenset()

    def is_dead(self, did: str, part_seq: int) -> bool:
        """Whether rows of `did` in a live part that was added at `part_seq` are dead."""
        return part_seq < self.superseded.get(did, 0)

    def dead_in(self, live: LivePart) -> set[str]:
        """The DIDs whose rows in this part, if it has any, are dead."""
        return {did for did, seq in self.superseded.items() if live.seq < seq}

    def then(self, entries: Iterable[LogEntry], voids: Collection[int] = ()) -> Fold:
        """The fold after these entries too, which are in order and have been checked (`ShardLog`).

        Args:
            entries: those that follow; the ones whose seq is in `voids` left out.
            voids: seqs of void entries, those of this fold included.
        """
        parts, dids, superseded = dict(self.parts), dict(self.dids), dict(self.superseded)
        purged = set(self.purged)
        last, count, rewritten_seq = self, self.entries, self.rewritten_seq
        for entry in entries:
            for path in entry.removes:
                parts.pop(path, None)
            parts.update((part.path, LivePart(part, entry.seq)) for part in entry.adds)
            dids.update((did, (result, entry.seq)) for did, result in entry.dids.items())
            superseded.update((did, entry.seq) for did in entry.supersedes)
            purged.update(entry.purged)
            rewritten_seq = max(rewritten_seq, entry.rewritten)
            count += 1
            last = Fold(seq=entry.seq, epoch=entry.epoch, own=entry.own)
        return Fold(
            seq=last.seq,
            epoch=last.epoch,
            own=last.own,
            entries=count,
            parts=parts,
            dids=dids,
            superseded=superseded,
            rewritten_seq=rewritten_seq,
            purged=frozenset(purged),
            voids=self.voids | frozenset(voids),
        )
