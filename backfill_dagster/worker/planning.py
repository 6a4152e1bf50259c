"""The plan command as one call: opens the resolver, knows the scope, makes the plan. Dagster and the CLI call this."""

from __future__ import annotations

from backfill_dagster.plan.make import OnResolved, PlanResult, make_plan
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.connection import open_directory


async def plan_backfill(
    state: BackfillState,
    *,
    run_id: str,
    refresh: bool = False,
    limit: int | None = None,
    on_resolved: OnResolved = lambda done, total: None,
) -> PlanResult:
    """Plan a backfill: see `plan.make_plan` for arguments, result and errors."""
    selection = load_selection(state.config)
    async with open_directory(state) as directory:
        return await make_plan(
            state,
            directory.resolver,
            directory.handle_resolver,
            scope=selection.scope,
            run_id=run_id,
            refresh=refresh,
            limit=limit,
            on_resolved=on_resolved,
        )
