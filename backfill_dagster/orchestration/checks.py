"""The asset checks of a shard: error rate, drift, unaccounted DIDs. What they judge is measured in `report.health`.

They run as the last step of a shard run, by hand from the catalog, and inside a run that has to fail.
"""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from backfill_dagster.config import BackfillConfig
from backfill_dagster.errors import UnknownShardError
from backfill_dagster.model import Wanted
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.failures import clear_failures
from backfill_dagster.orchestration.metadata import Metadata, numbers
from backfill_dagster.orchestration.partitions import shard_partitions
from backfill_dagster.orchestration.resources import BackfillResource, backfill_of
from backfill_dagster.orchestration.run_tags import only_checks
from backfill_dagster.report import ShardHealth, health_markdown, shard_health
from backfill_dagster.report.markdown import inert
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import find_shard

ERROR_RATE = "error_rate"
DRIFT = "drift"
UNACCOUNTED = "unaccounted_dids"


@dataclass(frozen=True)
class Verdict:
    """One check's result.

    Attributes:
        check: its name.
        passed: whether all is well.
        severity: of a failure.
        description: one sentence.
        metadata: numbers to plot, and the tables.
    """

    check: str
    passed: bool
    severity: dg.AssetCheckSeverity
    description: str
    metadata: Metadata

    def fields(self, name: str) -> dict[str, Any]:
        """What both of Dagster's forms of a check's result take.

        Args:
            name: of the backfill.
        """
        return {
            "asset_key": dg.AssetKey([name, names.REPO_OUTCOMES]),
            "check_name": self.check,
            "passed": self.passed,
            "severity": self.severity,
            "description": self.description,
            "metadata": self.metadata,
        }


def shard_checks(config: BackfillConfig) -> dg.AssetChecksDefinition:
    """The checks of `repo_outcomes`, one result of each per partition."""
    name = config.name

    @dg.multi_asset_check(
        name=f"{name}__check_shard",
        specs=_specs(config),
        can_subset=True,
        required_resource_keys={names.state_resource(name)},
        description="Reads plan, log, parts and ledger of the shard and compares them.",
    )
    def check_shard(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        wanted = {key.name for key in context.selected_asset_check_keys}
        backfill = backfill_of(context.resources, name)
        with clear_failures(), backfill.open_state() as state:
            if not context.has_partition_key:
                raise UnknownShardError(f"the checks of {name} look at one shard: launch them with a partition")
            verdicts = judge_shard(backfill, state, context.partition_key, whole=only_checks(context.run))
        for verdict in verdicts:
            if verdict.check in wanted:
                yield dg.AssetCheckResult(**verdict.fields(name))

    return check_shard


def record_verdicts(context: dg.OpExecutionContext, name: str, verdicts: list[Verdict]) -> None:
    """Record results from inside an op: a run that fails never comes to its checks."""
    for verdict in verdicts:
        context.log_event(
            dg.AssetCheckEvaluation(  # type: ignore[arg-type]  # taken, says its code; its annotation doesn't
                **verdict.fields(name), partition=context.partition_key
            )
        )


def judge_shard(backfill: BackfillResource, state: BackfillState, key: str, *, whole: bool = False) -> list[Verdict]:
    """Look at a shard and judge it by its config.

    Args:
        backfill: the config and its plan.
        state: the opened state.
        key: partition key.
        whole: read every part, not only those of the last run.

    Raises:
        UnknownShardError: the plan doesn't know the partition key.
        StateError: plan or ledger can't be read.
    """
    plan = backfill.plan(state)
    shard = find_shard(plan, key)
    wanted = Wanted(load_selection(state.config).scope, plan.refresh)
    return verdicts_of(
        shard_health(state, plan, shard.key, wanted, whole=whole), state.config.monitoring.max_error_rate
    )


def verdicts_of(health: ShardHealth, max_error_rate: float) -> list[Verdict]:
    """The three checks over what was measured.

    Args:
        health: of one shard.
        max_error_rate: failures among the DIDs that were tried, 0 to 1; more is a warning.
    """
    tables: Metadata = {"summary": dg.MetadataValue.md(health_markdown(health))}
    shares = {"error_rate": health.error_rate, "max_error_rate": max_error_rate}
    listed = "\n".join(f"- {inert(one)}" for one in health.drift) or "none"
    drift_list: Metadata = {"differences": dg.MetadataValue.md(listed)}
    missing = len(health.unaccounted)
    return [
        Verdict(
            ERROR_RATE,
            health.error_rate <= max_error_rate,
            dg.AssetCheckSeverity.WARN,
            f"{health.failed:,} of {health.tried:,} DIDs that were tried failed: {health.error_rate:.1%}, "
            f"{max_error_rate:.1%} is allowed",
            {**tables, **numbers(shares | {"failed": health.failed, "tried": health.tried})},
        ),
        Verdict(
            DRIFT,
            not health.drift,
            dg.AssetCheckSeverity.WARN if health.at_work else dg.AssetCheckSeverity.ERROR,
            _drift_text(health),
            {**drift_list, **tables, **numbers({"differences_found": len(health.drift)})},
        ),
        Verdict(
            UNACCOUNTED,
            not missing,
            dg.AssetCheckSeverity.ERROR,
            f"{missing:,} of {health.dids:,} DIDs have no ledger item yet: run the partition again"
            if missing
            else f"each of {health.dids:,} DIDs has its ledger item",
            {**tables, **numbers({"unaccounted": missing, "dids": health.dids})},
        ),
    ]


def _drift_text(health: ShardHealth) -> str:
    if not health.drift:
        return "log, parts and ledger agree"
    if health.at_work:
        return f"not judged: {health.at_work} is at work on the shard, and what it has in hand looks like a difference"
    return f"{health.drift[0]}" + (f" (and {len(health.drift) - 1} more)" if len(health.drift) > 1 else "")


def _specs(config: BackfillConfig) -> list[dg.AssetCheckSpec]:
    asset, partitions = [config.name, names.REPO_OUTCOMES], shard_partitions(config.name)
    allowed = config.monitoring.max_error_rate
    texts = {
        ERROR_RATE: f"Warns when more than {allowed:.1%} of the shard's DIDs failed (`monitoring.max_error_rate`). "
        "Accounts that are gone, moved or deactivated are no failures, nor is waiting after a 429.",
        DRIFT: "Log, Parquet parts, the rows inside and the ledger agree; what doesn't is named with its remedy.",
        UNACCOUNTED: "Every DID that the plan gives this shard has its ledger item.",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # of `partitions_def`, at each load, for each check
        return [
            dg.AssetCheckSpec(check, asset=asset, description=text, partitions_def=partitions)
            for check, text in texts.items()
        ]
