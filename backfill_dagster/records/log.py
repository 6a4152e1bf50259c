"""The log of one shard in an object store: read and checked, sealed by a new epoch, appended to by one writer.

An entry's form is in `entry.py`, what entries add up to in `fold.py`, how a fold is kept in `snapshot.py`. Writing
parts before and publishing them after an entry is the worker's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from backfill_dagster.errors import FencedError, ObjectMissingError, StateError
from backfill_dagster.model import RepoOutcome
from backfill_dagster.records.damage import Unreadable, damaged_entries
from backfill_dagster.records.entry import ENTRY_MAX_BYTES, LogEntry, Part, entry_bytes, outcome_bytes
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.snapshot import fold_from_snapshot, snapshot_bytes, snapshot_key, snapshot_prefix
from backfill_dagster.store.base import ObjectStore

__all__ = ["ENTRY_MAX_BYTES", "Fold", "LivePart", "LogEntry", "Part", "ShardLog", "entry_bytes", "outcome_bytes"]

_SEAL_TRIES_MAX = 1000
"""Entries that a fenced writer can put before a seal in the time that the seal takes to read on: a few, in truth."""

_SNAPSHOTS_KEPT = 2
"""The newest ones; the second is for whoever has just listed the first."""

_FILLER = b'{"void":true}\n'
"""Under the number of an entry that was lost."""

_ENTRY_NAME = re.compile(r"([0-9]{8})\.json")


class ShardLog:
    """The log of one shard, `log/<shard>/<seq:08d>.json`: dense, hash-chained, append-only.

    The only thing that makes a commit is that `put_if_absent` gave the writer the next number.
    """

    def __init__(self, store: ObjectStore, shard: str, *, nonce: Callable[[], str]) -> None:
        """Args: the store; partition key (or the reserved shard); `nonce` makes a text that never comes twice."""
        self.shard = shard
        self._store = store
        self._nonce = nonce

    def key(self, seq: int) -> str:
        """The store's key of an entry."""
        return f"log/{self.shard}/{seq:08d}.json"

    def read(self, *, voids: Collection[int] = (), whole: bool = False) -> Fold:
        """Fold the log, from its newest good snapshot on; of no log, an empty fold.

        Args:
            voids: seqs to take as unreadable, beyond those that the log lists itself.
            whole: read every entry, whatever snapshots there are.

        Raises:
            StateError: a gap, an entry that can't be read, a broken hash chain or a falling epoch; the text names the
                key and the remedy.
        """
        begin = Fold() if whole or voids else self._from_snapshot()
        return self._read_on(begin, voids)

    def snapshots(self) -> list[int]:
        """The seqs that there are snapshots of, in order."""
        return sorted(self._numbers(snapshot_prefix(self.shard)))

    def write_snapshot(self, fold: Fold) -> None:
        """Keep `fold`, and of the older snapshots the newest: for whoever reads the log next. Raises StateError."""
        older = [seq for seq in self.snapshots() if seq < fold.seq]
        self._store.put(snapshot_key(self.shard, fold.seq), snapshot_bytes(fold))
        for seq in older[: 1 - _SNAPSHOTS_KEPT]:
            self._store.delete(snapshot_key(self.shard, seq))

    def snapshot(self, seq: int) -> Fold:
        """The fold that a snapshot holds.

        Raises:
            StateError: it can't be read, or it is not of this log's entry `seq`.
        """
        key = snapshot_key(self.shard, seq)
        try:
            fold = fold_from_snapshot(self._store.get(key))
        except ValueError as error:
            raise StateError(f"{self._store.path(key)} can't be read: {error}") from error
        entry = self._load(seq)
        if fold.seq != seq or not isinstance(entry, LogEntry) or entry.own != fold.own:
            raise StateError(f"{self._store.path(key)} is not a snapshot of this log")
        return fold

    def drop_snapshots(self) -> None:
        """Delete all snapshots: the log says it all. Raises StateError."""
        for seq in self.snapshots():
            self._store.delete(snapshot_key(self.shard, seq))

    def damaged(self) -> dict[int, str]:
        """Seq -> what is wrong with the entry, of all that can't count (`records.damage`).

        Those that the log lists as void already are left out.
        """
        return damaged_entries([self._load(seq) for seq in range(1, self.last_seq() + 1)])

    def fill(self, last: int) -> None:
        """Put something under every number up to `last` that has nothing, so that nobody can ever take it.

        What is put is no entry: it is to be listed as void. Raises StateError when the store refuses.
        """
        for seq in range(1, last + 1):
            if not self._store.exists(self.key(seq)):
                self._store.put_if_absent(self.key(seq), _FILLER)

    def bad_snapshots(self, whole: Fold) -> dict[int, str]:
        """Seq -> what is wrong, of the snapshots that don't say what the log says.

        Args:
            whole: the log, read without them.
        """
        problems = {}
        for seq in self.snapshots():
            try:
                if self.refresh(self.snapshot(seq)) != whole:
                    problems[seq] = "doesn't say what the log says"
            except StateError as error:
                problems[seq] = str(error)
        return problems

    def last_epoch(self) -> int:
        """The highest epoch of all entries that can be read, whatever is wrong with the others."""
        loaded = (self._load(seq) for seq in range(1, self.last_seq() + 1))
        return max((entry.epoch for entry in loaded if isinstance(entry, LogEntry)), default=0)

    def _from_snapshot(self) -> Fold:
        for seq in reversed(self.snapshots()):
            try:
                return self.snapshot(seq)
            except StateError:
                continue  # a cache: `verify` names it, the entries say the same
        return Fold()

    def refresh(self, fold: Fold) -> Fold:
        """`fold` and what was appended since. Raises as `read`."""
        return self._read_on(fold, ())

    def seal(self, fold: Fold, *, epoch: int, run_id: str) -> Fold:
        """Begin a new epoch: append an entry without data, reading on as long as the number is taken.

        From then on a writer of an older epoch can't append any more: the number it counts on is taken.

        Args:
            fold: the log as the new holder has read it.
            epoch: the new holder's, higher than every one in the log.
            run_id: the new holder's run.

        Raises:
            FencedError: the log has this epoch or a newer one already.
            StateError: as `read`, or the store refuses.
        """
        for _ in range(_SEAL_TRIES_MAX):
            if fold.epoch >= epoch:
                raise FencedError(
                    f"{self.shard}: the log is at epoch {fold.epoch}, this run has {epoch}: another run has taken the "
                    "shard over; nothing was touched, start again when it is done"
                )
            entry = LogEntry(seq=fold.seq + 1, epoch=epoch, nonce=self._nonce(), run_id=run_id, prev=fold.own).sealed()
            if self._put(entry):
                return fold.then([entry])
            fold = self.refresh(fold)
        raise StateError(f"{self.shard}: its log grew {_SEAL_TRIES_MAX} times while it was sealed; find the other run")

    def append(
        self,
        fold: Fold,
        *,
        epoch: int,
        run_id: str,
        scope: str,
        refresh: int,
        adds: Sequence[Part] = (),
        removes: Sequence[str] = (),
        dids: Mapping[str, RepoOutcome] | None = None,
        supersedes: Sequence[str] = (),
        purged: Sequence[str] = (),
        voids: Sequence[int] = (),
        rewritten: int = 0,
    ) -> Fold:
        """Append entry `fold.seq + 1`: the commit point. One try; there is no reading on with data in hand.

        Returns:
            The fold with the entry, as it reads from the store.

        Raises:
            FencedError: the number is another writer's, or it can't be told whether the entry stands: stop at once and
                touch nothing, staged parts included; the next run recovers.
            StateError: the store refused, and the entry provably doesn't stand.
            ValueError: the entry is over `ENTRY_MAX_BYTES`, its parts don't fit the fold, or the epoch isn't sealed.
        """
        if fold.epoch > epoch:
            raise FencedError(f"{self.shard}: the log is at epoch {fold.epoch}, this run has {epoch}; start again")
        if fold.epoch < epoch:
            raise ValueError(f"epoch {epoch} has not sealed the log of {self.shard}")
        _check_parts(fold, adds, removes)
        entry = LogEntry(
            seq=fold.seq + 1,
            epoch=epoch,
            nonce=self._nonce(),
            run_id=run_id,
            scope=scope,
            refresh=refresh,
            adds=adds,
            removes=removes,
            dids=dids or {},
            supersedes=supersedes,
            purged=purged,
            voids=voids,
            rewritten=rewritten,
            prev=fold.own,
        ).sealed()
        data = entry.to_bytes()
        if len(data) > ENTRY_MAX_BYTES:
            raise ValueError(f"{self.key(entry.seq)} would have {len(data)} bytes, the maximum is {ENTRY_MAX_BYTES}")
        further = fold.then([LogEntry.from_bytes(data)], voids)  # before the PUT: what raises after it, is unsure
        if not self._put(entry):
            raise FencedError(
                f"{self.shard}: entry {entry.seq} of its log is another run's, which has taken the shard over; nothing "
                "of this batch was committed, start again when that run is done"
            )
        return further

    def _put(self, entry: LogEntry) -> bool:
        """Whether the entry stands now: created, or found under its number with its own nonce (a lost reply).

        Raises:
            FencedError: it may stand, or come to stand yet: nobody can tell.
            StateError: the store refused, and it provably doesn't.
        """
        try:
            if self._store.put_if_absent(self.key(entry.seq), entry.to_bytes()):
                return True
        except StateError as error:
            if error.may_have_happened or self._may_stand(entry):
                raise self._unsure(entry, error) from error
            raise
        try:
            found = self._load(entry.seq)  # taken, perhaps by an earlier try of this very entry
        except StateError as error:
            raise self._unsure(entry, error) from error
        if isinstance(found, Unreadable) and not found.is_filler:
            raise self._unsure(entry, f"what is there {found.problem}")
        return isinstance(found, LogEntry) and found.nonce == entry.nonce

    def _unsure(self, entry: LogEntry, error: StateError | str) -> FencedError:
        return FencedError(
            f"{self.key(entry.seq)} may or may not have been written ({error}); nothing more is touched, the next run "
            "finds out",
            may_stand=True,
        )

    def _may_stand(self, entry: LogEntry) -> bool:
        try:
            found = self._load(entry.seq)
            if isinstance(found, LogEntry):
                return found.nonce == entry.nonce
            return self._store.exists(self.key(entry.seq))
        except StateError:
            return True

    def _load(self, seq: int) -> LogEntry | Unreadable:
        try:
            data = self._store.get(self.key(seq))
        except ObjectMissingError:
            return Unreadable(seq, "is missing")
        try:
            entry = LogEntry.from_bytes(data)
        except ValueError as error:
            return Unreadable(seq, f"can't be read: {error}", is_filler=data == _FILLER)
        if entry.seq != seq:
            return Unreadable(seq, f"says that it is entry {entry.seq}")
        return entry

    def _read_on(self, fold: Fold, voids: Collection[int]) -> Fold:
        loaded = [self._load(seq) for seq in range(fold.seq + 1, self.last_seq() + 1)]
        if not loaded:
            return fold
        listed = {seq for entry in loaded if isinstance(entry, LogEntry) for seq in entry.voids}
        if any(seq <= fold.seq for seq in listed - fold.voids):
            return self._read_on(Fold(), voids)  # a repair has voided an entry that this fold still counts
        void = fold.voids | listed | frozenset(voids)
        good = self._checked(fold, loaded, void)
        further = fold.then(good, void)
        if loaded[-1].seq in void:
            return replace(further, seq=loaded[-1].seq, own="")
        return further

    def _checked(self, fold: Fold, loaded: Sequence[LogEntry | Unreadable], void: Collection[int]) -> list[LogEntry]:
        """The entries that count, each one checked against the one before."""
        good: list[LogEntry] = []
        prev, epoch = (None if fold.seq in void else fold.own), fold.epoch
        for entry in loaded:
            if entry.seq in void:
                prev = None
                continue
            if isinstance(entry, Unreadable):
                raise self._broken(entry.seq, entry.problem)
            if prev is not None and entry.prev != prev:
                raise self._broken(entry.seq, "doesn't follow from the entry before (the hash chain is broken)")
            if entry.epoch < epoch:
                raise self._broken(entry.seq, f"has epoch {entry.epoch} after epoch {epoch}")
            prev, epoch = entry.own, entry.epoch
            good.append(entry)
        return good

    def _broken(self, seq: int, problem: str) -> StateError:
        return StateError(
            f"{self._store.path(self.key(seq))} {problem}; bring it back from a backup of the state folder, or let "
            "`backfill repair` fetch anew what it said"
        )

    def last_seq(self) -> int:
        """The highest number that is taken, 0 for none.

        A listing may miss what is created meanwhile, so gaps are told by `get`.
        """
        return max(self._numbers(f"log/{self.shard}/"), default=0)

    def _numbers(self, prefix: str) -> Iterator[int]:
        """The numbers of entries, or of snapshots, that there are; in no order."""
        names = (_ENTRY_NAME.fullmatch(info.key.removeprefix(prefix)) for info in self._store.list(prefix))
        return (int(name[1]) for name in names if name)


def _check_parts(fold: Fold, adds: Sequence[Part], removes: Sequence[str]) -> None:
    paths = [part.path for part in adds]
    if len(set(paths)) != len(paths) or any(path in fold.parts for path in paths):
        raise ValueError("a part is added twice; part names are never used twice")
    if len(set(removes)) != len(removes) or any(path not in fold.parts for path in removes):
        raise ValueError("a part is removed that is not live")
