"""What is left to do in a shard, and what became of the rest: pure functions over plan, log fold and retry marks.

The log decides, never the ledger; nothing here reads or writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from backfill_dagster.model import Outcome, PlannedDid, RepoOutcome, Wanted
from backfill_dagster.records.fold import Fold


def outcome_of(did: str, fold: Fold, wanted: Wanted) -> Outcome:
    """The DID's outcome in this scope; PENDING when its entry answers to another scope or there is none.

    A refresh doesn't turn a known outcome into pending here: what is known stays known until the new attempt ends.
    """
    known = fold.dids.get(did)
    if known is not None and known[0].outcome is Outcome.PURGED:
        return Outcome.PURGED
    if known is None or known[0].scope != wanted.scope:
        return Outcome.PENDING
    return known[0].outcome


def is_pending(did: str, fold: Fold, marks: Mapping[str, int], wanted: Wanted) -> bool:
    """Whether the DID has to be fetched: no terminal outcome in this scope and refresh, or a mark for retry.

    A mark counts while its seq is the DID's: once a newer entry stands, it has been answered.
    """
    known = fold.dids.get(did)
    if known is None:
        return True
    result, seq = known
    if marks.get(did) == seq and result.outcome is not Outcome.PURGED:
        return True
    if result.outcome is Outcome.PURGED:
        return False
    if result.scope != wanted.scope or not result.outcome.is_terminal:
        return True
    return result.outcome.is_retried_on_refresh and result.refresh < wanted.refresh


def pending_dids(
    planned: Iterable[PlannedDid], fold: Fold, marks: Mapping[str, int], wanted: Wanted
) -> list[PlannedDid]:
    """The shard's DIDs that a run has to fetch, in plan order; delisted ones never are."""
    return [one for one in planned if not one.delisted and is_pending(one.did, fold, marks, wanted)]


def waiting_dids(planned: Iterable[PlannedDid], fold: Fold, marks: Mapping[str, int]) -> list[PlannedDid]:
    """Of the reserved shard: the DIDs that the next plan looks up again, since a server was down or by a mark."""
    return [
        one
        for one in planned
        if not one.delisted
        and (known := fold.dids.get(one.did)) is not None
        and known[0].outcome is not Outcome.PURGED
        and (known[0].outcome is Outcome.PENDING or marks.get(one.did) == known[1])
    ]


def outcome_counts(planned: Iterable[PlannedDid], fold: Fold, wanted: Wanted) -> Counter[Outcome]:
    """Outcomes of the shard's current (not delisted) DIDs."""
    return Counter(outcome_of(one.did, fold, wanted) for one in planned if not one.delisted)


def live_rows(fold: Fold, dids: Iterable[str] | None = None) -> Counter[str]:
    """Live rows per record type, by the log's evidence; of the given DIDs, or of all that the log knows."""
    results: Iterable[RepoOutcome] = (
        (result for result, _ in fold.dids.values())
        if dids is None
        else (fold.dids[did][0] for did in dids if did in fold.dids)
    )
    rows: Counter[str] = Counter()
    for result in results:
        rows.update(result.records_by_type)
    return rows


def has_rewrites(fold: Fold) -> bool:
    """Whether superseded rows still lie in live parts: such a shard counts as having work.

    A DID is only ever superseded when it had rows, and the last entry of a rewrite says how far it went.
    """
    return any(seq > fold.rewritten_seq for seq in fold.superseded.values())
