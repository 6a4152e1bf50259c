"""Reports: what is there, what is missing and why; and whether parts, log, ledger and plan agree."""

from backfill_dagster.report.coverage import Coverage, build_coverage
from backfill_dagster.report.health import ShardHealth, health_markdown, shard_health
from backfill_dagster.report.html import render_html
from backfill_dagster.report.markdown import render_markdown
from backfill_dagster.report.store import write_report
from backfill_dagster.report.verify import verify_backfill

__all__ = [
    "Coverage",
    "ShardHealth",
    "build_coverage",
    "health_markdown",
    "render_html",
    "render_markdown",
    "shard_health",
    "verify_backfill",
    "write_report",
]
