"""Fails when a package that holds the data falls under 90 % of lines or branches.

With `--print` it says all figures, good or not (the test run shows them above its summary), else only those under the
bound.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import coverage

BOUND_PERCENT = 90.0
PACKAGES = ("sources", "ledger", "store", "records", "plan", "worker", "atproto")


def main() -> int:
    """Read the combined coverage data of the last test run; returns the exit code."""
    data = coverage.Coverage()
    data.load()
    failed = False
    for package in PACKAGES:
        found = percentages(data, package)
        is_under = min(found.values()) < BOUND_PERCENT
        failed |= is_under
        if is_under or "--print" in sys.argv:
            said = ", ".join(f"{percent:.1f} % of {what}" for what, percent in found.items())
            print(f"coverage of {package}: {said}" + (f"; the bound is {BOUND_PERCENT:.0f} %" if is_under else ""))
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
