"""Fails when a package that holds the data falls under 90 % of lines or branches; silent when all is well."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import coverage

BOUND_PERCENT = 90.0
PACKAGES = ("plan", "worker", "records", "ledger", "sources", "atproto")


def main() -> int:
    """Read the combined coverage data of the last test run; returns the exit code."""
    data = coverage.Coverage()
    data.load()
    failed = False
    for package in PACKAGES:
        for what, percent in percentages(data, package).items():
            if percent < BOUND_PERCENT:
                failed = True
                print(f"coverage of {package}: {percent:.1f} % of {what}, the bound is {BOUND_PERCENT:.0f} %")
    return 1 if failed else 0


def percentages(data: coverage.Coverage, package: str) -> dict[str, float]:
    """Lines and branches of a package that the tests went through, in percent."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(Path(os.devnull).open("w")):
        out = Path(folder) / "coverage.json"
        data.json_report(include=[f"*/backfill_dagster/{package}/*"], outfile=str(out))
        totals = json.loads(out.read_bytes())["totals"]
    return {
        "lines": 100 * totals["covered_lines"] / max(totals["num_statements"], 1),
        "branches": 100 * totals["covered_branches"] / max(totals["num_branches"], 1),
    }


if __name__ == "__main__":
    sys.exit(main())
