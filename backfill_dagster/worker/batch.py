"""The writing side of a shard run: checked repos become rows, rows become parts, parts and outcomes one log entry.

Everything here is called from one thread only (the run's writer thread), because the column lists must not be shared.
The commit point is the log entry: before it nothing counts, after it nothing can be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from backfill_dagster import __version__
from backfill_dagster.atproto.car import CAR_HEADER_BYTES, scan_car
from backfill_dagster.atproto.cid import cid_text
from backfill_dagster.atproto.repo import Repo, open_repo
from backfill_dagster.atproto.tid import is_tid
from backfill_dagster.errors import BackfillError, StateError
from backfill_dagster.model import LedgerItem, Outcome, PlannedDid, RepoOutcome, Wanted
from backfill_dagster.records.entry import ENTRY_MAX_BYTES, Part, outcome_bytes
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.records.parts import BatchWriter
from backfill_dagster.records.rewrite import rewrite_superseded
from backfill_dagster.records.selection import Selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.repo import Fetched
from backfill_dagster.worker.result import RunNumbers

BATCH_MAX_BYTES = 256 * 1024 * 1024
"""A batch is cut when its rows weigh this much, however few DIDs it has."""

ENTRY_SOFT_BYTES = ENTRY_MAX_BYTES // 2
"""A batch is cut when outcomes and parts weigh this much: the DID that passes it, with 200 collections of the longest
names in its counts and as many parts, adds 300 KiB at most, and the supersedes have to fit too."""

PART_ENTRY_BYTES = 1100
"""What one part adds to the entry, at most: path (with shard and record type), record type, size and digest."""

SEEN_COLLECTIONS_MAX = 200
"""Collections counted one by one in the evidence of a DID; the rest is added up under `*`."""


class NothingSinceError(BackfillError):
    """A header-only CAR: the host says that nothing was written since the date asked for; to be confirmed."""

    def __init__(self, root: str) -> None:
        super().__init__("the CAR has a root and no blocks")
        self.root = root


class UnprovenError(BackfillError):
    """The answer to a `since` doesn't prove all that was asked for: only the whole repo will do.

    Hosts keep a block under the rev that first had it, so a second record of the same content is listed without one.
    """


class ShardBatches:
    """Collects repos and outcomes of one shard and commits them batch by batch.

    Attributes:
        fold: the shard's log as of the last commit.
    """

    def __init__(
        self,
        state: BackfillState,
        log: ShardLog,
        fold: Fold,
        *,
        epoch: int,
        run_id: str,
        selection: Selection,
        wanted: Wanted,
        check_leases: Callable[[], None],
        numbers: RunNumbers,
    ) -> None:
        self.fold = fold
        self._state = state
        self._log = log
        self._epoch = epoch
        self._run_id = run_id
        self._selection = selection
        self._wanted = wanted
        self._check_leases = check_leases
        self._numbers = numbers
        self._outcomes: dict[str, RepoOutcome] = {}
        self._outcome_bytes = 0
        self._writer: BatchWriter | None = None

    def add_repo(self, fetched: Fetched, signing_key: str) -> RepoOutcome:
        """Check a repo and turn its wanted records into rows of the batch in hand; commits when the batch is full.

        Raises:
            InvalidRepoError: a check failed; not one row was made.
            NothingSinceError: the CAR is header-only, the answer to a `since` that nothing is newer than.
            UnprovenError: a partial CAR lists a wanted record of that time and leaves it out.
        """
        repo = self._open(fetched, signing_key)
        writer = self._open_writer()
        before = writer.rows
        try:
            counts = writer.add_repo(repo, fetched_at_us=int(self._state.effects.clock() * 1_000_000), rev=repo.rev)
        except BaseException:
            self.discard()  # rows of this repo may be in already, and nobody knows which
            raise
        self._numbers.repos_fetched += 1
        self._numbers.records_total += writer.rows - before
        result = RepoOutcome(
            did=repo.did,
            outcome=Outcome.COMPLETE,
            rev=repo.rev,
            commit_cid=repo.commit_cid,
            last_complete_rev=repo.rev,
            signature_checked=repo.signature_checked,
            repo_bytes=len(fetched.body.data),
            records_by_type=dict(counts.records_by_type),
            records_seen_by_collection=None if fetched.since else _bounded(counts.seen_by_collection),
            undated=counts.undated,
            quarantined=counts.quarantined,
            attempts=fetched.attempts,
            fetched_at=fetched.fetched_at,
        )
        return self.add_outcome(fetched.planned, result)

    def _open(self, fetched: Fetched, signing_key: str) -> Repo:
        verify: Literal["full", "structure", "off"] = self._state.config.processing.verify
        did, data = fetched.planned.did, fetched.body.data
        if fetched.since is None:
            return open_repo(data, did=did, signing_key=signing_key, verify=verify)
        if len(data) == CAR_HEADER_BYTES:
            raise NothingSinceError(cid_text(scan_car(data).root))
        repo = open_repo(data, did=did, signing_key=signing_key, verify=verify, partial=True)
        if repo.rev is None or repo.rev < fetched.since:
            # Older than what was asked for: good only if the host ignored `since` and sent everything.
            return open_repo(data, did=did, signing_key=signing_key, verify=verify)
        for collection, rkey in repo.absent:
            if rkey >= fetched.since and is_tid(rkey) and self._selection.wants_collection(collection):
                raise UnprovenError(f"the partial CAR lists {collection}/{rkey} and leaves it out")
        return repo

    def add_outcome(self, planned: PlannedDid, result: RepoOutcome) -> RepoOutcome:
        """Put an outcome into the batch in hand, completed with what the run and the DID's history know."""
        result = self._complete(planned, result)
        self._outcomes[result.did] = result
        self._outcome_bytes += outcome_bytes(result)
        self._numbers.dids_done += 1
        if self._is_full():
            self.commit()
        return result

    def let_go(self, did: str) -> None:
        """End the DID's rows here: it has moved to another shard, which has its repo."""
        before = self.fold.dids[did][0]
        result = replace(
            before,
            outcome=Outcome.MOVED,
            error_code="Moved",
            error_detail="the account has moved, and the shard that the plan gave it has its repo",
            records_by_type={},
            quarantined=0,
            rows_scope="",
            finished_at=self._state.effects.now_text(),
            run_id=self._run_id,
        )
        self._outcomes[did] = result
        self._outcome_bytes += outcome_bytes(result)
        if self._is_full():
            self.commit()

    def _complete(self, planned: PlannedDid, result: RepoOutcome) -> RepoOutcome:
        result = replace(
            result,
            scope=self._wanted.scope,
            refresh=self._wanted.refresh,
            pds_endpoint=planned.pds_endpoint,
            handle=planned.handle,
            finished_at=self._state.effects.now_text(),
            run_id=self._run_id,
            config_hash=self._state.config.config_hash,
            code_version=__version__,
        )
        if result.outcome is Outcome.COMPLETE:
            return replace(result, rows_scope=self._wanted.scope)
        return self._keep_rows(result)

    def _keep_rows(self, result: RepoOutcome) -> RepoOutcome:
        """The rows of the last complete fetch stand, unless a terminal outcome in a new scope ends them."""
        known = self.fold.dids.get(result.did)
        if known is None:
            return result
        before = known[0]
        result = replace(result, last_complete_rev=before.last_complete_rev)
        if result.outcome.is_terminal and before.rows_scope != self._wanted.scope:
            return result
        return replace(
            result,
            records_by_type=before.records_by_type,
            quarantined=before.quarantined,
            rows_scope=before.rows_scope,
        )

    def _is_full(self) -> bool:
        rows_bytes = self._writer.bytes_buffered if self._writer else 0
        entry_bytes = self._outcome_bytes + PART_ENTRY_BYTES * (self._writer.parts if self._writer else 0)
        return (
            len(self._outcomes) >= self._state.config.processing.batch_size
            or entry_bytes >= ENTRY_SOFT_BYTES
            or rows_bytes >= BATCH_MAX_BYTES
        )

    def commit(self) -> None:
        """Commit the batch in hand: parts to staging, the log entry (commit point), publish, ledger.

        Raises:
            FencedError: the shard or its host belongs to somebody else now; nothing was committed.
            StateError: the disk refused; what was committed before stands.
        """
        if not self._outcomes:
            return
        try:
            self._check_leases()
            adds = self._writer.finish() if self._writer else []
            fold = self._log.append(
                self.fold,
                epoch=self._epoch,
                run_id=self._run_id,
                scope=self._wanted.scope,
                refresh=self._wanted.refresh,
                adds=adds,
                dids=self._outcomes,
                supersedes=self._superseded(),
            )
        except (StateError, ValueError):
            self.discard()
            raise
        except BaseException:
            # The entry may stand, and its parts with it: they are the next run's to publish or to sweep.
            self._forget()
            raise
        self.fold, outcomes = fold, self._outcomes
        # From here on the parts are live, staged or not: whatever fails now, `discard` must not find them.
        self._forget()
        self._publish(adds, outcomes)
        self._numbers.commits += 1

    def _publish(self, adds: list[Part], outcomes: Mapping[str, RepoOutcome]) -> None:
        ledger, shard = self._state.ledger, self._log.shard
        self._state.store.publish(part.path for part in adds)
        ledger.put(
            [
                LedgerItem(backfill=self._state.config.name, shard=shard, seq=self.fold.seq, result=result)
                for result in outcomes.values()
            ]
        )
        ledger.clear_marks(shard, list(outcomes))

    def _superseded(self) -> list[str]:
        """DIDs of the batch whose earlier rows end here: replaced by new ones, or not kept (`_keep_rows`)."""
        return [
            did
            for did, result in self._outcomes.items()
            if self._had_rows(did) and (result.outcome is Outcome.COMPLETE or not result.rows_scope)
        ]

    def _had_rows(self, did: str) -> bool:
        known = self.fold.dids.get(did)
        return known is not None and (known[0].records_total > 0 or known[0].quarantined > 0)

    def rewrite(self) -> None:
        """Take superseded rows out of live parts: new parts in one entry, publish them, delete the old ones.

        Plain globs see both between the last two steps; a run that ends leaves it exact.
        """
        self._check_leases()
        change = rewrite_superseded(
            self._state.store,
            self.fold,
            shard=self._log.shard,
            epoch=self._epoch,
            compression=self._state.config.records.compression,
            unique=self._state.effects.new_id,
        )
        if not change.removes:
            return
        self.fold = self._log.append(
            self.fold,
            epoch=self._epoch,
            run_id=self._run_id,
            scope=self._wanted.scope,
            refresh=self._wanted.refresh,
            adds=change.adds,
            removes=change.removes,
        )
        self._state.store.publish(part.path for part in change.adds)
        for path in change.removes:
            self._state.store.delete(path)

    def discard(self) -> None:
        """Drop the batch in hand; its DIDs stay pending."""
        if self._writer is not None:
            self._writer.discard()
        self._forget()

    def _forget(self) -> None:
        self._outcomes, self._outcome_bytes, self._writer = {}, 0, None

    def _open_writer(self) -> BatchWriter:
        if self._writer is None:
            self._writer = BatchWriter(
                self._state.store,
                shard=self._log.shard,
                seq=self.fold.seq + 1,
                epoch=self._epoch,
                selection=self._selection,
                raw=self._state.config.records.raw,
                compression=self._state.config.records.compression,
                unique=self._state.effects.new_id,
            )
        return self._writer


def _bounded(counts: Mapping[str, int]) -> dict[str, int]:
    if len(counts) <= SEEN_COLLECTIONS_MAX:
        return dict(counts)
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(largest[:SEEN_COLLECTIONS_MAX])
    return kept | {"*": sum(count for _, count in largest[SEEN_COLLECTIONS_MAX:])}
