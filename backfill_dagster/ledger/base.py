"""The contract of a ledger: one item per backfill, shard and DID, an index over the shard logs that people can query.

The logs are the truth; everything here but leases and retry marks can be written again from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backfill_dagster.ledger.lease_record import LeaseTable
from backfill_dagster.model import LedgerItem, Outcome, Wanted


@dataclass(frozen=True, slots=True)
class Settled:
    """What every DID of a shard has had its answer to: nobody has to read the shard's log to know that nothing is left.

    Attributes:
        wanted: scope and refresh.
        generation: of the plan that said which DIDs these are.
    """

    wanted: Wanted
    generation: int


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a shard holds, in a few numbers.

    Attributes:
        outcomes: outcome -> current DIDs of the shard.
        rows: record type -> live rows.
        seq: the log entry that the numbers are as of.
        settled: None when DIDs were left, or nobody looked.
    """

    outcomes: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    seq: int = 0
    settled: Settled | None = None


class Ledger(Protocol):
    """The ledger of one backfill. Every method raises `StateError` (what, where, remedy) when its storage refuses.

    Reading a ledger that doesn't exist yet finds nothing and creates nothing.
    """

    @property
    def leases(self) -> LeaseTable:
        """The leases on this backfill's shards."""
        ...

    def put(self, items: Sequence[LedgerItem], *, over: Mapping[str, int] | None = None) -> None:
        """Write items; of several of one shard and DID the highest seq stays.

        Of two calls, a storage that can compare leaves what stands at the same or a higher seq (SQLite); in another the
        later one stays (DynamoDB, whose batches take no conditions). Only the holder of the shard's lease calls this,
        so that takes a stalled one that wakes up: what it writes is stale by its seq, which `verify` names.

        Args:
            items: of this backfill.
            over: DID -> the seq of the item that is wrong and may be written over, whatever that seq is; items of other
                DIDs only where there is none. For mending what a sealed log proves wrong: what somebody else has
                written meanwhile stays.

        Raises:
            ValueError: an item of another backfill.
        """
        ...

    def as_kept(self, item: LedgerItem) -> LedgerItem:
        """The item as it comes back when it was written: a storage may have to cut a very large one."""
        ...

    def items(self, shard: str) -> Iterator[LedgerItem]:
        """The items of a shard, by DID; read in pages, so that writers are never held up."""
        ...

    def item(self, shard: str, did: str) -> LedgerItem | None:
        """One item."""
        ...

    def find(self, did: str) -> list[LedgerItem]:
        """Every item of a DID in this backfill (one per shard that it has been in), by shard."""
        ...

    def find_in_all(self, did: str) -> list[LedgerItem]:
        """Every item of a DID in all backfills that share this storage, by backfill and shard."""
        ...

    def seqs(self, shard: str) -> dict[str, int]:
        """DID -> seq of its item."""
        ...

    def summaries(self) -> dict[str, ShardSummary]:
        """Shard -> its summary."""
        ...

    def put_summary(self, shard: str, summary: ShardSummary) -> None:
        """Write a shard's summary; never over one of a higher seq."""
        ...

    def attention(self, outcome: Outcome, limit: int) -> list[LedgerItem]:
        """Up to `limit` items with this outcome, by shard and DID.

        Raises:
            ValueError: nobody has to look at items with this outcome (`Outcome.needs_attention`): no index has them.
        """
        ...

    def mark_for_retry(self, shard: str, did_seqs: Mapping[str, int]) -> None:
        """Mark DIDs to be fetched again; each mark answers to the seq of the outcome that it reopens."""
        ...

    def retry_marks(self, shard: str) -> dict[str, int]:
        """DID -> the seq that its mark answers to. A mark counts while that is the DID's seq in the log."""
        ...

    def marked_shards(self) -> set[str]:
        """The shards that have marks, answered ones among them."""
        ...

    def clear_marks(self, shard: str, dids: Iterable[str]) -> None:
        """Delete the marks of these DIDs that an item of a higher seq has answered; newer marks stay."""
        ...

    def state_id(self) -> str | None:
        """The state that this ledger indexes; None while it is not bound."""
        ...

    def bind_state(self, state_id: str) -> None:
        """Tie the ledger to a state, once.

        Raises:
            StateError: it is tied to another one, or holds items of an unknown one.
        """
        ...

    def close(self) -> None:
        """Close the storage, leases included."""
        ...


def check_attention(outcome: Outcome) -> None:
    """ValueError for an outcome that `Ledger.attention` can't be asked about."""
    if not outcome.needs_attention:
        raise ValueError(f"{outcome.value} needs no attention, and no index has it")
