"""Whoever holds a shard's leases and has sealed its log: appends entries, publishes parts, keeps the ledger in step.

The commit point is the log entry: before it nothing counts, after it nothing can be lost. What goes into entries is
`batch`'s (fetched repos) and `rewriting`'s (rows that go). From one thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.ledger import Settled, ShardSummary
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome, Wanted
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.records.rewrite import PartRewriter, Rewrite
from backfill_dagster.state import BackfillState

SNAPSHOT_ENTRIES = 128
"""Entries beyond the newest snapshot before there is another one: how much of a log has to be read, at most."""


class ShardWriter:
    """The one writer of a shard.

    Attributes:
        state: the opened state.
        shard: partition key, or the reserved shard.
        fold: the shard's log as of the last entry.
        wanted: scope and refresh that outcomes answer to.
        run_id: names the run in entries.
        epoch: the shard lease's.
        reopened: the retry marks that there were when the shard was taken in hand: DID -> seq.
    """

    def __init__(
        self,
        state: BackfillState,
        log: ShardLog,
        fold: Fold,
        *,
        epoch: int,
        run_id: str,
        wanted: Wanted,
        check_leases: Callable[[], None],
    ) -> None:
        self.state = state
        self.shard = log.shard
        self.fold = fold
        self.wanted = wanted
        self.run_id = run_id
        self.epoch = epoch
        self.check_leases = check_leases
        self._log = log
        self.reopened = state.ledger.retry_marks(log.shard)
        self._snapshot_seq = max(log.snapshots(), default=0)

    def append(self, **content: Any) -> None:
        """Append an entry: `content` as of `ShardLog.append`. The commit point.

        Raises:
            FencedError: the shard or its host belongs to somebody else now; nothing was committed, or it can't be told.
            StateError, ValueError: as `ShardLog.append`; nothing was committed.
        """
        self.check_leases()
        self.fold = self._log.append(
            self.fold,
            epoch=self.epoch,
            run_id=self.run_id,
            scope=self.wanted.scope,
            refresh=self.wanted.refresh,
            **content,
        )

    def finish_commit(self, adds: Sequence[Part], removes: Sequence[str], dids: Mapping[str, RepoOutcome]) -> None:
        """What follows an entry: publish its parts, write its items, delete what it replaced.

        Raises:
            FencedError: a successor has been here meanwhile.
            StateError: the disk refused (the next run finishes this), or as above.
        """
        self.state.store.publish(part.path for part in adds)
        self.write_items(dids)
        for path in removes:
            self.state.store.delete(path)
        if self.fold.seq - self._snapshot_seq >= SNAPSHOT_ENTRIES:
            self.check_leases()
            self._log.write_snapshot(self.fold)
            self._snapshot_seq = self.fold.seq

    def write_items(self, dids: Mapping[str, RepoOutcome]) -> None:
        """Write the ledger items of the last entry and clear the retry marks that they answer."""
        if not dids:
            return
        ledger, name, seq = self.state.ledger, self.state.config.name, self.fold.seq
        # Marks that came while these were fetched ask for another fetch: this one answers those that were there before.
        marks = ledger.retry_marks(self.shard)
        newer = [did for did in dids if did in marks and marks[did] != self.reopened.get(did)]
        if newer:
            ledger.mark_for_retry(self.shard, dict.fromkeys(newer, seq))
        ledger.put([LedgerItem(backfill=name, shard=self.shard, seq=seq, result=result) for result in dids.values()])
        ledger.clear_marks(self.shard, list(dids))

    def commit_rewrite(
        self,
        change: Rewrite,
        *,
        dids: Mapping[str, RepoOutcome] | None = None,
        supersedes: Sequence[str] = (),
        purged: Iterable[str] = (),
        rewritten: int = 0,
    ) -> None:
        """Commit parts that replace others, in one entry; then publish and delete.

        Plain globs see both between the last two steps; a run that ends leaves it exact.
        """
        outcomes = dids or {}
        try:
            self.append(
                adds=change.adds,
                removes=change.removes,
                dids=outcomes,
                supersedes=supersedes,
                purged=sorted(purged),
                rewritten=rewritten,
            )
        except (StateError, ValueError, FencedError) as error:
            if not (isinstance(error, FencedError) and error.may_stand):
                for part in change.adds:
                    self.state.store.discard_staged(part.path)
            raise
        self.finish_commit(change.adds, change.removes, outcomes)

    def rewriter(self) -> PartRewriter:
        """What makes the new parts of the next entry."""
        effects, compression = self.state.effects, self.state.config.records.compression
        return PartRewriter(
            self.state.store,
            self.fold,
            shard=self.shard,
            epoch=self.epoch,
            compression=compression,
            unique=effects.new_id,
        )

    def summarize(self, outcomes: Mapping[Outcome, int], rows: Mapping[str, int], settled: Settled | None) -> None:
        """Write the shard's summary: the last word of a run that went through."""
        named = {outcome.value: count for outcome, count in outcomes.items()}
        summary = ShardSummary(outcomes=named, rows=dict(rows), seq=self.fold.seq, settled=settled)
        self.state.ledger.put_summary(self.shard, summary)
