"""The writing side of a shard run: checked repos become rows, rows become parts, parts and outcomes one log entry.

Everything here is called from one thread only (the run's writer thread), because the column lists must not be shared.
How an entry is committed is `writer`'s, what a partial repo proves `delta`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backfill_dagster import __version__
from backfill_dagster.atproto.repo import Repo, Verify
from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.model import Outcome, PlannedDid, RepoOutcome
from backfill_dagster.records.delta import has_holes
from backfill_dagster.records.entry import ENTRY_MAX_BYTES, outcome_bytes
from backfill_dagster.records.parts import BatchWriter, OldRows
from backfill_dagster.records.purges import Purges
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.tree_marks import TreeMark, by_name, tree_marks
from backfill_dagster.worker.body import bounded_counts, is_header_only, read_body, unchanged
from backfill_dagster.worker.delta import DeltaRows
from backfill_dagster.worker.repo import Fetched
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster.worker.writer import ShardWriter

BATCH_MAX_BYTES = 256 * 1024 * 1024
"""A batch is cut when its rows weigh this much, however few DIDs it has."""

ENTRY_SOFT_BYTES = ENTRY_MAX_BYTES // 2
"""A batch is cut when outcomes and parts weigh this much: the DID that passes it, with 200 collections of the longest
names in its counts and as many parts, adds 300 KiB at most, and the supersedes have to fit too."""

PART_ENTRY_BYTES = 1100
"""What one part adds to the entry, at most: path (with shard and record type), record type, size and digest."""


class ShardBatches:
    """Collects repos and outcomes of one shard and commits them batch by batch.

    Args:
        writer: of the shard.
        selection: which records are wanted.
        purges: what may not be stored.
        numbers: the run's counters; `dids_done` and the like grow here.
    """

    def __init__(self, writer: ShardWriter, selection: Selection, purges: Purges, numbers: RunNumbers) -> None:
        self._writer = writer
        self._state = writer.state
        self._wanted = writer.wanted
        self._selection = selection
        self._purges = purges
        self._numbers = numbers
        self._deltas = DeltaRows(writer.state.store, selection)
        self._outcomes: dict[str, RepoOutcome] = {}
        self._outcome_bytes = 0
        self._rows: BatchWriter | None = None

    def add_repo(self, fetched: Fetched, signing_key: str) -> RepoOutcome:
        """Check a repo and turn its wanted records into rows of the batch in hand; commits when the batch is full.

        Raises:
            InvalidRepoError: a check failed; not one row was made.
            NothingSinceError: the CAR is header-only, the answer to a synthetic `since` that nothing is newer than.
            UnprovenError: a partial CAR doesn't prove enough.
        """
        verify: Verify = self._state.config.processing.verify
        if fetched.base is not None and is_header_only(fetched):
            return self.add_outcome(fetched.planned, unchanged(fetched, fetched.base))
        repo = read_body(fetched, signing_key, verify, self._selection)
        old: OldRows | None = None
        gap_rows: Sequence[int] = ()
        purged = self._purges.uris_of(repo.did)
        if fetched.base is not None and not repo.is_whole:
            old, gap_rows = self._deltas.standing(self._writer.fold, repo, fetched.base, purged)
        rows = self._open_rows()
        try:
            fetched_at_us = int(self._state.effects.clock() * 1_000_000)
            counts = rows.add_repo(repo, fetched_at_us=fetched_at_us, rev=repo.rev, purged=purged, old=old)
        except BaseException:
            self.discard()  # rows of this repo may be in already, and nobody knows which
            raise
        self._numbers.repos_fetched += 1
        self._numbers.records_total += sum(counts.records_by_type.values()) + counts.quarantined - counts.kept
        result = RepoOutcome(
            did=repo.did,
            outcome=Outcome.COMPLETE,
            rev=repo.rev,
            commit_cid=repo.commit_cid,
            last_complete_rev=repo.rev,
            signature_checked=repo.signature_checked,
            repo_bytes=len(fetched.body.data),
            records_by_type=dict(counts.records_by_type),
            records_seen_by_collection=bounded_counts(counts.seen_by_collection) if repo.is_whole else None,
            undated=counts.undated + (fetched.base.undated if fetched.base and old is not None else 0),
            quarantined=counts.quarantined,
            attempts=fetched.attempts,
            fetched_at=fetched.fetched_at,
            tree=self._marks(repo, purged, gap_rows, fetched.base),
        )
        return self.add_outcome(fetched.planned, result)

    def _marks(self, repo: Repo, purged: frozenset[str], gap_rows: Sequence[int], base: RepoOutcome | None) -> TreeMark:
        if has_holes(repo.did, self._selection, purged):
            return ()
        return tree_marks(repo, self._selection, gap_rows, {} if base is None else by_name(base.tree))

    def add_outcome(self, planned: PlannedDid, result: RepoOutcome) -> RepoOutcome:
        """Put an outcome into the batch in hand, completed with what the run and the DID's history know."""
        result = self._complete(planned, result)
        self._numbers.dids_done += 1
        self._put(result)
        return result

    def _put(self, result: RepoOutcome) -> None:
        self._outcomes[result.did] = result
        self._outcome_bytes += outcome_bytes(result)
        if self._is_full():
            self.commit()

    def let_go(self, did: str, outcome: Outcome) -> None:
        """End the DID's rows here, which another shard has newer ones of.

        Args:
            did: the DID.
            outcome: MOVED when it belongs there, PENDING when it has come back here and is to be fetched anew.
        """
        self._put(
            replace(
                self._writer.fold.dids[did][0],
                outcome=outcome,
                error_code="Moved",
                error_detail="the account has moved, and the shard of another host has its repo",
                commit_cid=None,
                tree=(),
                records_by_type={},
                quarantined=0,
                rows_scope="",
                finished_at=self._state.effects.now_text(),
                run_id=self._writer.run_id,
            )
        )

    def _complete(self, planned: PlannedDid, result: RepoOutcome) -> RepoOutcome:
        result = replace(
            result,
            scope=self._wanted.scope,
            refresh=self._wanted.refresh,
            pds_endpoint=planned.pds_endpoint,
            handle=planned.handle,
            finished_at=self._state.effects.now_text(),
            run_id=self._writer.run_id,
            config_hash=self._state.config.config_hash,
            code_version=__version__,
        )
        if result.outcome is Outcome.COMPLETE:
            return replace(result, rows_scope=self._wanted.scope)
        return self._keep_rows(result)

    def _keep_rows(self, result: RepoOutcome) -> RepoOutcome:
        """The rows of the last complete fetch stand, unless a terminal outcome in a new scope ends them."""
        known = self._writer.fold.dids.get(result.did)
        if known is None:
            return result
        before = known[0]
        result = replace(result, last_complete_rev=before.last_complete_rev)
        is_asked_whole = result.outcome is Outcome.INVALID_REPO or result.did in self._writer.reopened
        if not is_asked_whole and result.outcome is not Outcome.UNCHANGED:
            # What only a delta needs: after a bad repo, and until a mark has its answer, the repo is fetched whole.
            result = replace(
                result,
                commit_cid=before.commit_cid,
                signature_checked=before.signature_checked,
                repo_bytes=before.repo_bytes,
                records_seen_by_collection=before.records_seen_by_collection,
                undated=before.undated,
                fetched_at=before.fetched_at,
                tree=before.tree,
            )
        if result.outcome.is_terminal and before.rows_scope != self._wanted.scope:
            return result
        return replace(
            result,
            records_by_type=before.records_by_type,
            quarantined=before.quarantined,
            rows_scope=before.rows_scope,
        )

    def _is_full(self) -> bool:
        rows_bytes = self._rows.bytes_buffered if self._rows else 0
        entry_bytes = self._outcome_bytes + PART_ENTRY_BYTES * (self._rows.parts if self._rows else 0)
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
            self._writer.check_leases()
            adds = self._rows.finish() if self._rows else []
            self._writer.append(adds=adds, dids=self._outcomes, supersedes=self._superseded())
        except (StateError, ValueError):
            self.discard()
            raise
        except FencedError as fenced:
            # Nobody comes after the successor to sweep: what surely isn't live goes with its writer.
            self._forget() if fenced.may_stand else self.discard()
            raise
        except BaseException:
            # The entry may stand, and its parts with it: they are the next run's to publish or to sweep.
            self._forget()
            raise
        outcomes = self._outcomes
        # From here on the parts are live, staged or not: whatever fails now, `discard` must not find them.
        self._forget()
        self._writer.finish_commit(adds, (), outcomes)
        self._numbers.commits += 1

    def _superseded(self) -> list[str]:
        """DIDs of the batch whose earlier rows end here: replaced by new ones, or not kept (`_keep_rows`)."""
        return [
            did
            for did, result in self._outcomes.items()
            if self._had_rows(did) and (result.outcome is Outcome.COMPLETE or not result.rows_scope)
        ]

    def _had_rows(self, did: str) -> bool:
        known = self._writer.fold.dids.get(did)
        return known is not None and known[0].has_rows

    def discard(self) -> None:
        """Drop the batch in hand; its DIDs stay pending."""
        if self._rows is not None:
            self._rows.discard()
        self._forget()

    def _forget(self) -> None:
        self._outcomes, self._outcome_bytes, self._rows = {}, 0, None

    def _open_rows(self) -> BatchWriter:
        if self._rows is None:
            self._rows = BatchWriter(
                self._state.store,
                shard=self._writer.shard,
                seq=self._writer.fold.seq + 1,
                epoch=self._writer.epoch,
                selection=self._selection,
                raw=self._state.config.records.raw,
                compression=self._state.config.records.compression,
                unique=self._state.effects.new_id,
            )
        return self._rows
