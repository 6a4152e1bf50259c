"""DIDs by outcome over a whole backfill, as the shards' summaries have them."""

from __future__ import annotations

from collections import Counter

from backfill_dagster.ledger.base import Ledger


def outcome_counts(ledger: Ledger) -> Counter[str]:
    """Outcome -> current DIDs, for one small item read a shard. One that is at work counts as it last summed up."""
    counts: Counter[str] = Counter()
    for summary in ledger.summaries().values():
        counts.update(summary.outcomes)
    return counts
