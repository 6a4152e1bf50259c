"""The coverage of a DID list: outcomes by host, rows by type, what is missing and why. Reads plan and logs only."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from backfill_dagster.errors import UsageError
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, RepoOutcome, Shard, Wanted
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.progress import live_rows, outcome_of, pending_dids, waiting_dids
from backfill_dagster.records.fold import Fold
from backfill_dagster.report.reasons import REASONS
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import PartFiles, lost_parts
from backfill_dagster.state import BackfillState

EXAMPLES_MAX = 10
COLUMN_VALUES_MAX = 50


@dataclass
class Missing:
    """DIDs of one outcome other than complete and unchanged.

    Attributes:
        dids: how many.
        errors: error code -> DIDs.
        examples: at most `EXAMPLES_MAX` of (DID, shard, detail).
    """

    dids: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Coverage:
    """What is there and what is not, of every DID that the source lists.

    Attributes:
        name: the backfill.
        generated_at: ISO 8601 UTC.
        records_path: where the Parquet lies.
        dids: current DIDs of the plan.
        delisted: DIDs that have left the source; not counted anywhere else.
        lost_parts: live parts that are missing or have another size: the rows in them are counted and are not there.
        left: DIDs that a run would fetch (or a plan look up): also those reopened by a refresh or `backfill retry`.
        outcomes: outcome -> DIDs.
        hosts: host -> outcome -> DIDs; DIDs without a host under `_unroutable`.
        rows: record type -> live rows.
        undated: records left out because they have no readable date (time range only).
        quarantined: records set aside because they break their row contract.
        repo_bytes: bytes of the CARs of complete DIDs.
        missing: outcome -> why, how many, examples.
        columns: kept source column -> value -> outcome -> DIDs.
        estimate: what the plan said the job would cost.
    """

    name: str
    generated_at: str
    records_path: str
    dids: int = 0
    delisted: int = 0
    lost_parts: int = 0
    left: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    hosts: dict[str, Counter[Outcome]] = field(default_factory=lambda: defaultdict(Counter))
    rows: Counter[str] = field(default_factory=Counter)
    undated: int = 0
    quarantined: int = 0
    repo_bytes: int = 0
    missing: dict[Outcome, Missing] = field(default_factory=lambda: defaultdict(Missing))
    columns: dict[str, dict[str, Counter[Outcome]]] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One JSON object; counts of zero are left out."""
        return {
            "name": self.name,
            "generated_at": self.generated_at,
            "records_path": self.records_path,
            "dids": self.dids,
            "delisted": self.delisted,
            "lost_parts": self.lost_parts,
            "left": self.left,
            "outcomes": _names(self.outcomes),
            "hosts": {host: _names(counts) for host, counts in sorted(self.hosts.items())},
            "records": dict(sorted(self.rows.items())),
            "undated": self.undated,
            "quarantined": self.quarantined,
            "repo_bytes": self.repo_bytes,
            "missing": {
                outcome.value: {
                    "dids": missing.dids,
                    "why": REASONS[outcome][0],
                    "remedy": REASONS[outcome][1],
                    "errors": dict(missing.errors.most_common()),
                    "examples": [
                        {"did": did, "shard": shard, "detail": detail} for did, shard, detail in missing.examples
                    ],
                }
                for outcome, missing in sorted(self.missing.items(), key=lambda item: -item[1].dids)
            },
            "columns": {
                column: {value: _names(counts) for value, counts in sorted(values.items())}
                for column, values in sorted(self.columns.items())
            },
            "estimate": self.estimate,
        }


def build_coverage(state: BackfillState) -> Coverage:
    """Add up plan and logs.

    Raises:
        StateError: plan or a log can't be read.
        SourceError: a filter's list can't be read (it decides the scope).
        UsageError: there is no plan to report on.
    """
    plan: Plan = PlanStore(state.store).read()
    if plan.generation == 0:
        raise UsageError(f"nothing is planned yet in {state.store.uri}: plan first")
    wanted = Wanted(load_selection(state.config).scope, plan.refresh)
    coverage = Coverage(
        name=state.config.name,
        generated_at=state.effects.now_text(),
        records_path=state.store.path("records"),
        estimate=dict(plan.metadata.get("estimate", {})),
    )
    emptied = set(plan.shards())
    files = PartFiles.of(state)
    for key, dids in plan.by_shard():
        emptied.discard(key)
        fold = state.log(key).read()
        host = key if key == UNROUTABLE_SHARD else Shard.parse(key).host
        for planned in dids:
            if planned.delisted:
                coverage.delisted += 1
            else:
                _count(coverage, host, planned, fold, wanted)
        marks = state.ledger.retry_marks(key)
        is_reserved = key == UNROUTABLE_SHARD
        left = waiting_dids(dids, fold, marks) if is_reserved else pending_dids(dids, fold, marks, wanted)
        coverage.left += len(left)
        coverage.rows.update(live_rows(fold))
        coverage.lost_parts += lost_parts(state, key, fold, files.sizes)
    for key in emptied:
        fold = state.log(key).read()
        coverage.rows.update(live_rows(fold))
        coverage.lost_parts += lost_parts(state, key, fold, files.sizes)
    return coverage


def _count(coverage: Coverage, host: str, planned: PlannedDid, fold: Fold, wanted: Wanted) -> None:
    outcome = outcome_of(planned.did, fold, wanted)
    known = fold.dids.get(planned.did)
    result = known[0] if known else None
    coverage.dids += 1
    coverage.outcomes[outcome] += 1
    coverage.hosts[host][outcome] += 1
    for column, value in planned.columns.items():
        values = coverage.columns.setdefault(column, {})
        shown = "(null)" if value is None else value
        if shown not in values and len(values) >= COLUMN_VALUES_MAX:
            shown = "(other)"
        values.setdefault(shown, Counter())[outcome] += 1
    if result is not None:
        coverage.undated += result.undated
        coverage.quarantined += result.quarantined
        coverage.repo_bytes += 0 if outcome.needs_attention else result.repo_bytes
    if outcome.needs_attention:
        _explain(coverage.missing[outcome], planned, result)


def _explain(missing: Missing, planned: PlannedDid, result: RepoOutcome | None) -> None:
    missing.dids += 1
    missing.errors[(result.error_code if result else None) or "-"] += 1
    if len(missing.examples) < EXAMPLES_MAX:
        missing.examples.append((planned.did, planned.shard, (result.error_detail if result else None) or ""))


def _names(counts: Counter[Outcome]) -> dict[str, int]:
    return {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome]}
