"""Writes a coverage beside the records: `reports/coverage.{json,html}`, always the newest, and a dated JSON copy."""

from __future__ import annotations

import json

from backfill_dagster.report.coverage import Coverage
from backfill_dagster.report.html import render_html
from backfill_dagster.state import BackfillState


def write_report(state: BackfillState, coverage: Coverage) -> list[str]:
    """Write the report's objects; returns their keys, HTML first."""
    data = json.dumps(coverage.to_json(), indent=2).encode()
    stamp = coverage.generated_at.replace(":", "").replace(".", "-")
    objects = {
        "reports/coverage.html": render_html(coverage).encode("utf-8", "replace"),
        "reports/coverage.json": data,
        f"reports/history/{stamp}.json": data,
    }
    for key, content in objects.items():
        state.store.put(key, content)
    return list(objects)
