"""The health of one shard, as asset checks judge it: error rate, drift, DIDs that nobody has accounted for.

Reads plan, log, parts and ledger of that shard only. What counts as bad is said here, how bad it is by the config.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from backfill_dagster.errors import StateError
from backfill_dagster.model import HOST_DOWN, Outcome, RepoOutcome, Wanted
from backfill_dagster.plan import Plan
from backfill_dagster.progress import outcome_of
from backfill_dagster.records.fold import Fold
from backfill_dagster.report.markdown import inert, table
from backfill_dagster.report.shard_drift import shard_drift
from backfill_dagster.state import BackfillState

WORST_MAX = 10
DRIFT_MAX = 20
DETAIL_SHOWN = 160


@dataclass(frozen=True)
class ShardHealth:
    """How a shard stands, between runs.

    Attributes:
        shard: partition key.
        dids: current DIDs.
        outcomes: outcome -> current DIDs.
        tried: DIDs whose last attempt came to something: not those that wait for a host that asks for patience.
        failed: of these, the failures (`is_failed`).
        drift: differences between log, parts and ledger, at most `DRIFT_MAX` lines.
        at_work: who was at work on the shard meanwhile, so that differences may be no more than that; empty: nobody.
        unaccounted: current DIDs without a ledger item, in plan order.
        worst: the DIDs to look at first, at most `WORST_MAX`.
    """

    shard: str
    dids: int
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    tried: int = 0
    failed: int = 0
    drift: Sequence[str] = ()
    at_work: str = ""
    unaccounted: Sequence[str] = ()
    worst: Sequence[RepoOutcome] = ()

    @property
    def error_rate(self) -> float:
        """Failures among the DIDs that were tried, 0 to 1."""
        return self.failed / self.tried if self.tried else 0.0


def shard_health(state: BackfillState, plan: Plan, shard: str, wanted: Wanted, *, whole: bool = True) -> ShardHealth:
    """Look at one shard; damage is drift, not an error.

    Args:
        state: the opened state.
        plan: the plan as of now.
        shard: partition key.
        wanted: scope and refresh that outcomes answer to.
        whole: read every part; else only those that the last writer has made.

    Raises:
        StateError: plan or ledger can't be read.
    """
    began = state.log(shard).last_seq()
    drift = list(islice(shard_drift(state, shard, whole=whole), DRIFT_MAX))
    at_work = _at_work(state, shard, began) if drift else ""
    try:
        fold = state.log(shard).read()
    except StateError:
        fold = Fold()  # said in `drift`; what the ledger knows is counted all the same
    current = [one.did for one in plan.dids(shard) if not one.delisted]
    accounted = state.ledger.seqs(shard)
    results = [
        replace(fold.dids[did][0], outcome=outcome_of(did, fold, wanted)) if did in fold.dids else None
        for did in current
    ]
    known = [result for result in results if result is not None]
    return ShardHealth(
        shard=shard,
        dids=len(current),
        outcomes=Counter(Outcome.PENDING if result is None else result.outcome for result in results),
        tried=sum(result.outcome is not Outcome.PENDING or is_failed(result) for result in known),
        failed=sum(map(is_failed, known)),
        drift=drift,
        at_work=at_work,
        unaccounted=[did for did in current if did not in accounted],
        worst=_worst(known),
    )


def _at_work(state: BackfillState, shard: str, began: int) -> str:
    """Who works on the shard, or has since entry `began` of its log: whoever reads meanwhile sees half of a commit."""
    lease = state.ledger.leases.read(state.lease_name(shard))
    if lease is not None and not lease.released:
        return lease.owner_text
    return "another run" if state.log(shard).last_seq() != began else ""


def is_failed(result: RepoOutcome) -> bool:
    """Whether a DID counts into the error rate: a fetch that went wrong, or a host that was found dead over it."""
    return result.outcome.is_failure or (result.outcome is Outcome.PENDING and result.error_code == HOST_DOWN)


def health_markdown(health: ShardHealth) -> str:
    """Outcomes, and the worst DIDs with what is known of them, as Markdown tables."""
    counts = [(outcome.value, f"{health.outcomes[outcome]:,}") for outcome in Outcome if health.outcomes[outcome]]
    parts = [table(("outcome", "DIDs"), counts)]
    if health.worst:
        head = ("worst DIDs", "outcome", "attempts", "HTTP", "error", "detail")
        parts.append(table(head, map(_row, health.worst)))
    return "\n\n".join(parts)


def _worst(results: Iterable[RepoOutcome]) -> list[RepoOutcome]:
    """Failures before what only waits, and that before accounts that are gone; stubborn ones first."""
    bad = [result for result in results if result.outcome.needs_attention and result.outcome is not Outcome.PURGED]
    ranked = sorted(bad, key=lambda one: (not is_failed(one), one.outcome.is_terminal, -one.attempts, one.did))
    return ranked[:WORST_MAX]


def _row(result: RepoOutcome) -> tuple[str, ...]:
    status = "" if result.http_status is None else str(result.http_status)
    detail = (result.error_detail or "")[:DETAIL_SHOWN]
    return result.did, result.outcome.value, str(result.attempts), status, inert(result.error_code or ""), inert(detail)
