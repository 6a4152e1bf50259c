"""Results as Dagster metadata: numbers that the asset catalog plots over partitions and runs, and a Markdown summary.

Every number is there every time, zeros too: a plot with holes hides what it should show.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from backfill_dagster.model import UNROUTABLE_SHARD, Outcome
from backfill_dagster.orchestration.columns import record_types_of
from backfill_dagster.plan.make import PlanResult
from backfill_dagster.report import Coverage, render_markdown
from backfill_dagster.report.markdown import inert, table
from backfill_dagster.worker import ShardResult

ROW_COUNT = "dagster/partition_row_count"

Metadata = Mapping[str, dg.MetadataValue]


def records_metadata(result: ShardResult, entry: str) -> Metadata:
    """Of one entry of `record_types` in one shard: its live rows, then the run's numbers."""
    own = {one: result.rows[one] for one in record_types_of(entry, list(result.rows))}
    return _summed_up(shard_text(result, own), {ROW_COUNT: sum(own.values())} | shard_numbers(result))


def outcomes_metadata(result: ShardResult) -> Metadata:
    """Of one shard's ledger items: how many of each outcome, then the run's numbers."""
    outcomes = {f"outcome_{outcome.value}": result.outcomes.get(outcome, 0) for outcome in Outcome}
    return _summed_up(shard_text(result), {ROW_COUNT: result.dids} | shard_numbers(result) | outcomes)


def shard_numbers(result: ShardResult) -> dict[str, int | float]:
    """How a shard stands, and what the run did."""
    run = result.numbers
    complete = sum(result.outcomes.get(outcome, 0) for outcome in (Outcome.COMPLETE, Outcome.UNCHANGED))
    failed = sum(count for outcome, count in result.outcomes.items() if outcome.is_failure)
    return {
        "repos": result.dids,
        "repos_complete": complete,
        "repos_failed": failed,
        "repos_unavailable": result.dids - complete - failed - result.outcomes.get(Outcome.PENDING, 0),
        "repos_left": result.left,
        "repos_fetched": run.repos_fetched,
        "records_written": run.records_total,
        "records_per_second": round(run.records_total / run.seconds, 1) if run.seconds > 0 else 0.0,
        "bytes_fetched": run.bytes_fetched,
        "requests": run.requests,
        "rate_limited_429": run.rate_limited,
        "retries": run.retries,
        "commits": run.commits,
        "seconds": round(run.seconds, 3),
    }


def shard_text(result: ShardResult, rows: Mapping[str, int] | None = None) -> str:
    """A shard in Markdown: a headline, live rows, outcomes.

    Args:
        result: of the shard.
        rows: record type -> live rows to speak of; default: all of the shard's.
    """
    run = result.numbers
    headline = (
        f"**{result.shard}**: {run.dids_done:,} of {run.dids_total:,} pending DIDs done in {run.seconds:,.1f} s, "
        f"{run.records_total:,} records of all types written; {run.bytes_fetched:,} bytes, {run.requests:,} requests; "
        f"{result.left:,} DIDs left to retry"
    )
    parts = [headline]
    if result.stopped:
        parts.append(f"Stopped early: {inert(result.stopped)}")
    shown = sorted((result.rows if rows is None else rows).items())
    parts.append(table(("record type", "live rows"), [(one, f"{count:,}") for one, count in shown]))
    # Two tables one below the other look like one.
    parts.append("Outcomes of the shard's DIDs:")
    outcomes = [(one.value, f"{result.outcomes[one]:,}") for one in Outcome if result.outcomes.get(one)]
    parts.append(table(("outcome", "DIDs"), outcomes))
    return "\n\n".join(parts)


def plan_metadata(result: PlanResult) -> Metadata:
    """Of a plan: DIDs, shards, hosts, what changed, what it will cost."""
    plan = result.plan
    shards = {key: count for key, count in plan.shards().items() if key != UNROUTABLE_SHARD}
    counted = {
        "dagster/row_count": plan.count,
        "dids": plan.count,
        "shards": len(shards),
        "hosts": len(plan.hosts()),
        "new": result.new,
        "rerouted": result.rerouted,
        "delisted": result.delisted,
        "unresolved": result.unresolved,
        "without_host": sum(result.unroutable.values()),
        "generation": plan.generation,
        "refresh": plan.refresh,
    }
    cost = {f"estimate_{name}": value for name, value in result.estimate.to_json().items()}
    return _summed_up(plan_text(result), counted | cost)


def source_metadata(result: PlanResult) -> Metadata:
    """Of the list of DIDs as a plan has just read it."""
    return numbers({"dagster/row_count": result.listed}) | {
        "source": dg.MetadataValue.text(result.source),
        "version": dg.MetadataValue.text(str(result.plan.metadata.get("source_version", ""))),
    }


def plan_text(result: PlanResult) -> str:
    """A plan in Markdown: a headline, the largest hosts, DIDs without a host."""
    hosts = sorted(result.plan.hosts().items(), key=lambda item: (-item[1], item[0]))[:20]
    parts = [
        f"{result.source}: {result.plan.count:,} DIDs, {result.new:,} new, {result.delisted:,} delisted. "
        f"{result.estimate.text()}",
        table(("largest hosts", "DIDs"), [(host, f"{count:,}") for host, count in hosts]),
    ]
    if result.unroutable:
        parts.append(
            table(
                ("without a host", "DIDs"),
                [(outcome.value, f"{count:,}") for outcome, count in sorted(result.unroutable.items())],
            )
        )
    if result.unresolved:
        parts.append(unresolved_text(result.unresolved))
    return "\n\n".join(parts)


def unresolved_text(count: int) -> str:
    """What to do about DIDs whose directory was silent."""
    return f"{count:,} DIDs wait because their directory did not answer; plan again to look them up"


def coverage_metadata(coverage: Coverage, paths: Mapping[str, str]) -> Metadata:
    """Of a coverage report: DIDs by outcome, rows, and where it lies (`paths`: label -> path or URI)."""
    counted = {
        "dids": coverage.dids,
        "dids_left": coverage.left,
        "delisted": coverage.delisted,
        "records": sum(coverage.rows.values()),
        "quarantined": coverage.quarantined,
        "undated": coverage.undated,
        "repo_bytes": coverage.repo_bytes,
    } | {f"outcome_{outcome.value}": coverage.outcomes.get(outcome, 0) for outcome in Outcome}
    where: Metadata = {label: dg.MetadataValue.path(path) for label, path in paths.items()}
    return {**_summed_up(render_markdown(coverage), counted), **where}


def _summed_up(text: str, values: Mapping[str, int | float]) -> Metadata:
    """The Markdown first, as a person reads from the top; the numbers are for the plots."""
    return {"summary": dg.MetadataValue.md(text), **numbers(values)}


def numbers(values: Mapping[str, int | float]) -> dict[str, dg.MetadataValue]:
    """Plain numbers as metadata."""
    return {
        name: dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(value)
        for name, value in values.items()
    }
