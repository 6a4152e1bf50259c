"""What a shard's log says and the ledger doesn't yet: whoever has sealed the log writes these items."""

from __future__ import annotations

from collections.abc import Mapping

from backfill_dagster.ledger.base import Ledger
from backfill_dagster.model import LedgerItem, RepoOutcome


def items_behind(
    ledger: Ledger, dids: Mapping[str, tuple[RepoOutcome, int]], *, backfill: str, shard: str
) -> list[LedgerItem]:
    """The items whose seq in the ledger is older than the log's, or that it lacks.

    Args:
        ledger: the index.
        dids: DID -> its newest outcome and the seq that says so: the log's fold.
        backfill: name of the backfill.
        shard: partition key, or the reserved shard.
    """
    known = ledger.seqs(shard)
    return [
        LedgerItem(backfill=backfill, shard=shard, seq=seq, result=result)
        for did, (result, seq) in dids.items()
        if known.get(did, 0) < seq
    ]
