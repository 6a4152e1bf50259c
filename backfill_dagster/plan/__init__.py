"""The plan: each DID's current shard, as a log of generations; how it is made, and what fetching it costs."""

from backfill_dagster.plan.assign import assign
from backfill_dagster.plan.estimate import Estimate, estimate
from backfill_dagster.plan.make import PlanResult, make_plan
from backfill_dagster.plan.storage import Plan, PlanStore

__all__ = ["Estimate", "Plan", "PlanResult", "PlanStore", "assign", "estimate", "make_plan"]
